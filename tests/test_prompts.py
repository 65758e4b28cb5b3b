"""The prompt files: the repository's own, what is made of them, and what the schema refuses."""

import glob
import json
import os
import re

import pytest

import prompts
from data.lists import ClassName
from prompts import ENLARGED, GENERAL, PromptLibrary
from system.errors import UserError

FOLDER = os.path.dirname(os.path.abspath(prompts.__file__))


def content(domain="Pet", templates=("a pet, a {}.",), **classes):
    return {"domain": domain, "templates": list(templates), "classes": classes}


@pytest.fixture
def make_library(tmp_path):
    """make_library(a=…, b=…) -> library of files a.json, b.json, … in `tmp_path`."""
    def make(**files):
        for name, text in files.items():
            text = text if isinstance(text, str) else json.dumps(text)
            (tmp_path / f"{name}.json").write_text(text, encoding="utf-8")
        return PromptLibrary(str(tmp_path))
    return make


@pytest.fixture
def library(make_library):
    return make_library(
        general=content("general", ["a photo of a {}.", "a picture of the {}.", "one {}."]),
        pets=content("Pet", ["a pet, a {}.", "my {} at home."],
                     Guinea_Pig={"name": "guinea pig", "group": "small", "descriptions": [
                         "a round rodent without a tail.", "my guinea pig at home."]},
                     cat={"descriptions": ["a cat with whiskers."]},
                     dog={"name": "house dog"}),
        enlarged=content("enlarged", [], **{
            "lynx": {"group": "wild"}, "Guinea pig": {}, "CAT": {}, "house_dog": {},
            "Polar Bear": {"name": "polar bear"}}))


GUINEA_PIG = ClassName("Pet", "Guinea Pig")


# The repository's own files


@pytest.fixture(scope="module")
def files():
    """{domain: content} of the repository's files; a name that stands twice is an error."""
    def once(pairs):
        keys = [key for key, _ in pairs]
        assert len(set(keys)) == len(keys), [key for key in keys if keys.count(key) > 1]
        return dict(pairs)

    found = {}
    for path in glob.glob(os.path.join(FOLDER, "*.json")):
        with open(path, encoding="utf-8") as file:
            read = json.load(file, object_pairs_hook=once)
        assert os.path.basename(path) == read["domain"] + ".json"
        found[read["domain"]] = read
    assert {GENERAL, ENLARGED} < set(found)
    return found


def test_the_repositorys_files_are_of_the_schema(files):
    own = PromptLibrary(FOLDER)
    for domain, read in files.items():
        for name in read["classes"]:
            texts = own.prompts(ClassName(domain, name), n_general=2)
            assert len(texts) == len(set(texts)) >= 2, (domain, name)
            assert not [t for t in texts if "{" in t or "_" in t or t != t.strip()], (domain, name)


def test_the_repositorys_files_have_templates_and_descriptions(files):
    for domain, read in files.items():
        assert (len(read["templates"]) == 0) == (domain == ENLARGED), domain
        if domain != ENLARGED:
            for name, entry in read["classes"].items():
                assert len(set(entry["descriptions"])) >= 3, (domain, name)
        if domain not in (GENERAL, ENLARGED):
            assert read["classes"], domain


# CLIP's text encoder does not read them: such a sentence moves its class towards the other one.
COMPARES_OR_NEGATES = {
    "alike", "compared", "different", "differs", "instead", "lacking", "lacks", "less", "like",
    "more", "neither", "never", "no", "nor", "not", "rather", "resembles", "resembling", "similar",
    "than", "unlike", "without"}


def words_of(text):
    return " ".join(re.findall(r"[\w']+", text.lower().replace("-", " ")))


def names_of(key, entry):
    """The ways a class may be called in a description, the longest first, set of texts."""
    names = {words_of(name) for name in (key.replace("_", " "), entry.get("name", key))}
    names |= {name[:-len(" dog")] for name in names if name.endswith(" dog")}
    return sorted(names, key=len, reverse=True)


def places_of(name, text):
    """Where a name, or its plural, stands in a text: list of matches."""
    return list(re.finditer(rf"\b{re.escape(name)}(s|es)?\b", text))


def faults(description, own, others):
    """What is wrong with a description, list of texts.

    Args:
        description: the text. own: `names_of` its class. others: names of its file's others.
    """
    text, found = words_of(description), []
    starts = [match.start() for name in own for match in places_of(name, text)]
    if not starts or len(text[:min(starts)].split()) > 4:
        found.append("does not name its class in the first words")
    for name in own:
        text = re.sub(rf"\b{re.escape(name)}(s|es)?\b", "", text)
    if len(text.split()) > 12:
        found.append("is long")
    found += [f"says {word!r}" for word in COMPARES_OR_NEGATES & set(text.split())]
    return found + [f"names {name!r}" for name in others
                    if places_of(name, text) and not any(places_of(name, o) for o in own)]


def test_a_description_says_what_its_own_class_has(files):
    """In a caption's few words, so that it moves its class towards its own images."""
    for domain, read in files.items():
        names = {key: names_of(key, entry) for key, entry in read["classes"].items()}
        for key, entry in read["classes"].items():
            others = [name for other in names if other != key for name in names[other]]
            for description in entry.get("descriptions", []):
                found = faults(description, names[key], others)
                assert not found, (domain, key, description, found)


@pytest.mark.parametrize("description, fault", [
    ("a small red fox with a white tail tip.", None),
    ("two red foxes in the snow.", None),
    ("a red fox beside a wolf.", "names 'wolf'"),
    ("a red fox, unlike any other.", "says 'unlike'"),
    ("a red fox smaller than most.", "says 'than'"),
    ("a red fox without a collar.", "says 'without'"),
    ("an animal with pointed ears, the red fox.", "does not name its class in the first words"),
    ("an animal with pointed ears.", "does not name its class in the first words"),
    ("a red fox that runs along the edge of a wood in the early light of day.", "is long")])
def test_what_a_description_may_not_say(description, fault):
    found = faults(description, names_of("Red_fox", {}), ["wolf", "fox", "arctic fox"])
    assert found == ([] if fault is None else [fault])


def test_the_enlarged_list_is_large(files):
    assert len(files[ENLARGED]["classes"]) >= 1000
    rows = PromptLibrary(FOLDER).enlarged_prompts([], n_general=2)
    assert len(rows) == len(files[ENLARGED]["classes"])
    assert all(len(row) == 2 for row in rows)
    assert len({row[0] for row in rows}) == len(rows)


# Prompts of a class


def test_a_class_gets_its_domains_templates_and_its_descriptions(library):
    assert library.prompts(GUINEA_PIG) == [
        "a pet, a guinea pig.", "my guinea pig at home.", "a round rodent without a tail."]


@pytest.mark.parametrize("arguments, expected", [
    ({"n_general": 2, "domain": False, "descriptions": False},
     ["a photo of a guinea pig.", "a picture of the guinea pig."]),
    ({"n_general": 1, "descriptions": False},
     ["a photo of a guinea pig.", "a pet, a guinea pig.", "my guinea pig at home."]),
    ({"domain": False}, ["a round rodent without a tail.", "my guinea pig at home."]),
    ({"n_general": 9, "domain": False, "descriptions": False},
     ["a photo of a guinea pig.", "a picture of the guinea pig.", "one guinea pig."]),
    ({"domain": False, "descriptions": False},  # nothing is left, so the domain's are used
     ["a pet, a guinea pig.", "my guinea pig at home."]),
])
def test_each_kind_of_prompt_can_be_chosen(library, arguments, expected):
    assert library.prompts(GUINEA_PIG, **arguments) == expected


@pytest.mark.parametrize("domain, name", [
    ("Pet", "Guinea Pig"), ("pet", "guinea pig"), ("PET", "GUINEA_PIG"), ("Pet", "Guinea_Pig")])
def test_case_and_underscores_do_not_matter(library, domain, name):
    assert library.name(ClassName(domain, name)) == "guinea pig"
    assert library.prompts(ClassName(domain, name)) == library.prompts(GUINEA_PIG)


def test_an_unknown_class_gets_its_domains_templates(library):
    hamster = ClassName("Pet", "Golden Hamster")
    assert library.name(hamster) == "Golden Hamster"
    assert library.prompts(hamster) == ["a pet, a Golden Hamster.", "my Golden Hamster at home."]
    assert library.prompts(hamster, domain=False) == library.prompts(hamster)


@pytest.mark.parametrize("domain", ["Tools", ""])
def test_an_unknown_domain_gets_the_general_templates(library, domain):
    saw = ClassName(domain, "saw")
    expected = ["a photo of a saw.", "a picture of the saw.", "one saw."]
    assert library.name(saw) == "saw"
    assert library.prompts(saw) == expected
    assert library.prompts(saw, n_general=1) == expected[:1]


def test_a_class_is_looked_up_in_its_own_domain_alone(library):
    assert library.prompts(ClassName("Tools", "cat"), n_general=1) == ["a photo of a cat."]


def test_a_name_with_braces_is_left_as_it_is(library):
    assert library.prompts(ClassName("Tools", "{0} {}"), n_general=1) == ["a photo of a {0} {}."]


def test_a_class_without_a_name_is_called_as_it_is_listed(library):
    assert library.name(ClassName("Pet", "Cat")) == "cat"


def test_a_name_left_out_is_the_key_with_spaces(make_library):
    pets = make_library(general=content("general"), pets=content(Shiba_Dog={}))
    assert pets.prompts(ClassName("Pet", "Shiba Dog")) == ["a pet, a Shiba Dog."]


# The enlarged list


def test_the_enlarged_list_leaves_out_the_data_sets_names(library):
    def listed(*classes):
        return [row[0] for row in library.enlarged_prompts(classes, n_general=1)]

    everything = listed()
    assert len(everything) == 5 and "a photo of a lynx." in everything
    assert set(everything) - set(listed(ClassName("Pet", "cat"))) == {"a photo of a CAT."}
    # By what it is listed as and by what captions call it, in any domain.
    assert set(everything) - set(listed(GUINEA_PIG)) == {"a photo of a Guinea pig."}
    assert set(everything) - set(listed(ClassName("Zoo", "polar_bear"))) == {
        "a photo of a polar bear."}
    assert len(set(everything) - set(listed(ClassName("Pet", "dog")))) == 1
    assert listed(ClassName("Zoo", "bear")) == everything


@pytest.mark.parametrize("n_general, expected", [(1, 1), (2, 2), (4, 3)])
def test_enlarged_prompts_take_general_templates(library, n_general, expected):
    rows = library.enlarged_prompts([], n_general=n_general)
    assert rows[0] == ["a photo of a lynx.", "a picture of the lynx.", "one lynx."][:expected]
    assert {len(row) for row in rows} == {expected}


def test_without_an_enlarged_list_there_are_no_enlarged_prompts(make_library):
    assert make_library(general=content("general")).enlarged_prompts([]) == []


# The schema


def test_names_descriptions_and_groups_may_be_left_out(make_library):
    pets = make_library(general=content("general"), pets=content(
        cat={}, dog={"name": "hound"}, cow={"group": "farm"}, pig={"descriptions": []}))
    assert pets.prompts(ClassName("Pet", "pig")) == ["a pet, a pig."]


@pytest.mark.parametrize("pets, message", [
    ({"domain": "Pet", "templates": []}, "needs the keys domain, templates and classes"),
    ({"templates": [], "classes": {}}, "needs the keys domain, templates and classes"),
    ({"domain": "Pet", "classes": {}}, "needs the keys domain, templates and classes"),
    ({**content(), "source": "x"}, "needs the keys domain, templates and classes, and no other"),
    ([], "needs the keys domain, templates and classes"),
    (content(domain=""), "domain must be a name"),
    (content(domain=3), "domain must be a name"),
    ({**content(), "templates": "a {}."}, "templates must be a list of texts"),
    (content(templates=["a {}.", 3]), "templates must be a list of texts"),
    (content(templates=["a {}.", " "]), "templates must be a list of texts"),
    (content(templates=["a {}.", "a photo."]), "template 'a photo.' must have exactly one {}"),
    (content(templates=["a {} and a {}."]), "'a {} and a {}.' must have exactly one {}"),
    (content(templates=["a {0}."]), "template 'a {0}.' must have exactly one {}"),
    (content(templates=["a {name}."]), "template 'a {name}.' must have exactly one {}"),
    (content(templates=["a { {}."]), "template 'a { {}.' must have exactly one {}"),
    (content(templates=["a {} }."]), "template 'a {} }.' must have exactly one {}"),
    ({**content(), "classes": ["cat"]}, "classes must map names to entries"),
    (content(cat=["a cat."]), "class 'cat' may have name, group and descriptions"),
    (content(cat={"description": "a cat."}), "class 'cat' may have name, group and descriptions"),
    (content(cat={"descriptions": "a cat."}), "'cat': descriptions must be a list of texts"),
    (content(cat={"descriptions": ["a cat.", 3]}), "'cat': descriptions must be a list of texts"),
    (content(cat={"descriptions": [""]}), "class 'cat': descriptions must be a list of texts"),
    (content(cat={"descriptions": None}), "class 'cat': descriptions must be a list of texts"),
    (content(cat={"name": ""}), "class 'cat': name must be a text"),
    (content(cat={"name": 3}), "class 'cat': name must be a text"),
    (content(Big_Cat={}, **{"big cat": {}}), "'Big_Cat' and 'big cat' are the same"),
    (content(Cat={}, cat={}), "'Cat' and 'cat' are the same"),
    ("{", "cannot read the prompts"),
    ("", "cannot read the prompts"),
])
def test_a_file_of_another_schema_is_named(make_library, tmp_path, pets, message):
    with pytest.raises(UserError) as error:
        make_library(general=content("general"), pets=pets)
    assert str(tmp_path / "pets.json") in str(error.value)
    assert message in str(error.value)


def test_a_class_written_twice_the_same_way_is_refused(make_library):
    pets = '{"domain": "Pet", "templates": [], "classes": {"cat": {"name": "a"}, "cat": {}}}'
    with pytest.raises(UserError, match="'cat' is listed twice"):
        make_library(general=content("general"), pets=pets)


def test_general_templates_are_required(make_library):
    with pytest.raises(UserError, match="general"):
        make_library(general=content("general", []))


def test_a_file_that_is_not_utf_8_is_named(make_library, tmp_path):
    (tmp_path / "pets.json").write_bytes('{"domain": "Crème"}'.encode("latin-1"))
    with pytest.raises(UserError, match="cannot read the prompts") as error:
        make_library(general=content("general"))
    assert str(tmp_path / "pets.json") in str(error.value)


def test_two_files_of_a_domain_are_refused(make_library, tmp_path):
    with pytest.raises(UserError, match="the domain 'PET' has another file") as error:
        make_library(general=content("general"), cats=content("Pet"), dogs=content("PET"))
    assert str(tmp_path / "dogs.json") in str(error.value)


def test_the_general_domain_is_required(make_library, tmp_path):
    with pytest.raises(UserError, match="no file for the domain 'general'") as error:
        make_library(pets=content())
    assert str(tmp_path) in str(error.value)


def test_a_folder_without_prompts_is_named(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    for folder in (str(tmp_path), str(tmp_path / "none")):
        with pytest.raises(UserError, match="no prompt files in") as error:
            PromptLibrary(folder)
        assert folder in str(error.value)


def test_a_folder_with_brackets_in_its_name_is_read(tmp_path):
    folder = tmp_path / "prompts [1]"
    folder.mkdir()
    (folder / "general.json").write_text(json.dumps(content("general")))
    assert PromptLibrary(str(folder)).prompts(ClassName("", "cat")) == ["a pet, a cat."]

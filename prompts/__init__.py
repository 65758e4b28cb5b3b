"""Handcrafted prompts and the enlarged class list, read from the JSON files of this folder.

One file a domain, all of one schema:

    {"domain": "Thu-dog",
     "templates": ["a photo of a {}, a type of dog."],
     "classes": {"Shiba_Dog": {"name": "Shiba Inu dog", "descriptions": ["a Shiba Inu …"]}}}

Each template has one `{}` for the class's name. In a class, `name` (how a caption would put
it), `group` and `descriptions` may be left out. The domain "general" holds the templates for
any class, "enlarged" the class names that belong to no data set.
"""

import glob
import os

from data.lists import ClassName
from system.errors import UserError
from system.places import beside_scripts
from system.untrusted import odd_character, read_json, shown

GENERAL, ENLARGED = "general", "enlarged"


class PromptLibrary:
    """The prompts of a folder.

    Args:
        folder: where the `.json` files lie, in the working folder or beside the scripts.

    Raises:
        UserError: no such folder, or a file that is not of the schema.
    """

    def __init__(self, folder):
        folder, self._domains = beside_scripts(folder), {}
        paths = sorted(glob.glob(os.path.join(glob.escape(folder), "*.json")))
        if not paths:
            raise UserError(f"no prompt files in {folder}; set prompts.dir to the folder with "
                            "general.json")
        for path in paths:
            content = _read(path)
            key = content["domain"].lower()
            if key in self._domains:
                raise UserError(f"{path}: the domain {shown(content['domain'])} has another file")
            content["classes"] = {_plain(n): {"name": n.replace("_", " "), **c}
                                  for n, c in content["classes"].items()}
            self._domains[key] = content
        if GENERAL not in self._domains:
            raise UserError(f"{folder} has no file for the domain '{GENERAL}'")

    @property
    def domains(self):
        """Lower-case names of the domains of classes, set."""
        return set(self._domains) - {GENERAL, ENLARGED}

    def name(self, class_name):
        """How a caption names a class: 'Shiba Inu dog' for ('Thu-dog', 'Shiba Dog')."""
        return self._entry(class_name).get("name", class_name.name)

    def class_names(self, names):
        """The classes of plain names, each in a domain whose file lists it.

        Where several files do, the one that lists the most of `names` counts: 'crane' is a
        bird among birds. A name that no file lists has no domain.

        Args:
            names: list of texts.

        Returns:
            list of `data.lists.ClassName`.
        """
        listed = {domain["domain"]: {_plain(name) for name in names} & set(domain["classes"])
                  for key, domain in self._domains.items() if key in self.domains}
        by_share = sorted(listed, key=lambda domain: -len(listed[domain]))
        return [ClassName(next((d for d in by_share if _plain(name) in listed[d]), ""), name)
                for name in names]

    def prompts(self, class_name, n_general=0, domain=True, descriptions=True):
        """The prompts of a class.

        Args:
            class_name: `data.lists.ClassName`; one that no file knows gets its domain's
                templates, in an unknown domain the general ones.
            n_general: how many of the general templates to use.
            domain: use the domain's templates.
            descriptions: use the class's descriptions.

        Returns:
            list of one or more texts, none twice.
        """
        known = self._domains.get(class_name.domain.lower(), {"templates": []})
        general = self._domains[GENERAL]["templates"]
        entry = self._entry(class_name)
        templates = general[:n_general] + (known["templates"] if domain else [])
        described = entry.get("descriptions", []) if descriptions else []
        if not templates and not described:
            templates = known["templates"] or general
        name = self.name(class_name)
        return list(dict.fromkeys([t.format(name) for t in templates] + described))

    def enlarged_prompts(self, class_names, n_general=4):
        """Prompts of the classes of the enlarged list that are none of `class_names`.

        Args:
            class_names: list of `ClassName` of the data set.
            n_general: how many of the general templates to use, at least 1.

        Returns:
            list (one item a class) of lists of texts.
        """
        taken = {_plain(c.name) for c in class_names} | {_plain(self.name(c))
                                                         for c in class_names}
        classes = self._domains.get(ENLARGED, {"classes": {}})["classes"]
        templates = self._domains[GENERAL]["templates"][:n_general]
        return [[t.format(entry["name"]) for t in templates]
                for key, entry in classes.items() if key not in taken]

    def _entry(self, class_name):
        known = self._domains.get(class_name.domain.lower(), {"classes": {}})
        return known["classes"].get(_plain(class_name.name), {})


def _plain(name):
    return name.replace("_", " ").lower()


def _unique_keys(pairs):
    """A dict of JSON's pairs; a key written twice is an error, not the last one's value."""
    unique = {}
    for key, value in pairs:
        if key in unique:
            raise ValueError(f"{shown(key)} is listed twice")
        unique[key] = value
    return unique


def _read(path):
    """The content of a prompt file, checked against the schema."""
    try:
        content = read_json(path, _unique_keys)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read the prompts {path}: {error}") from error

    def require(condition, message):
        if not condition:
            raise UserError(f"{path}: {message}")

    def is_text(value):
        return isinstance(value, str) and value.strip() and odd_character(value) is None

    def texts(value):
        return isinstance(value, list) and all(map(is_text, value))

    require(isinstance(content, dict) and set(content) == {"domain", "templates", "classes"},
            "needs the keys domain, templates and classes, and no other")
    require(is_text(content["domain"]), "domain must be a name")
    require(texts(content["templates"]), "templates must be a list of texts")
    require(content["templates"] or content["domain"].lower() != GENERAL,
            "the general domain needs a template")
    for template in content["templates"]:
        require(template.count("{}") == template.count("{") == template.count("}") == 1,
                f"template {shown(template)} must have exactly one {{}}")
    require(isinstance(content["classes"], dict), "classes must map names to entries")
    for name, entry in content["classes"].items():
        require(is_text(name), f"the class name {shown(name)} must be a text")
        require(isinstance(entry, dict) and set(entry) <= {"name", "group", "descriptions"},
                f"class {shown(name)} may have name, group and descriptions, and no other key")
        require(texts(entry.get("descriptions", [])),
                f"class {shown(name)}: descriptions must be a list of texts")
        require(all(is_text(entry.get(key, "x")) for key in ("name", "group")),
                f"class {shown(name)}: name must be a text")
    seen = {}
    for name in content["classes"]:
        other = seen.setdefault(_plain(name), name)
        require(other == name, f"the classes {shown(other)} and {shown(name)} are the same")
    return content

"""Prompt files: JSON that is of the schema, of another, or of none."""

import json

from tests.corpus import NO_FILES, OTHER_FORMATS, Case, handled, refused

CAT = {"cat": {"descriptions": ["a cat with whiskers."]}}
OF_CAT = ["a pet, a cat.", "a cat with whiskers."]  # its prompts


def pets(**keys):
    """A file of the domain Pet with other values for its keys."""
    return json.dumps({"domain": "Pet", "templates": ["a pet, a {}."], "classes": CAT, **keys})


def with_classes(name, entries):
    """{name and number: file} of files with each of these classes."""
    return {f"{name} {i}": pets(classes=classes) for i, classes in enumerate(entries)}


# Read with `PromptLibrary` beside a general.json; the result is the prompts of ('Pet', 'cat').
PROMPTS = [
    *handled(OF_CAT, {
        "plain": pets(), "byte-order mark": "\ufeff" + pets(),
        "escapes": pets().replace("whiskers", "\\u0077hiskers"),
        "line breaks": pets().replace(" \"", "\r\n\t\""), "another case": pets(domain="PET"),
        "a description twice": pets(classes={"cat": {"descriptions": 2 * OF_CAT[1:]}}),
        "a template twice": pets(templates=2 * ["a pet, a {}."]),
        "a class in another case": pets(classes={"CAT": {**CAT["cat"], "name": "cat"}}),
        "10^5 classes": pets(classes={**CAT, **{f"cat {i}": {} for i in range(10 ** 5)}})}),
    *handled(OF_CAT[:1], {
        "an empty entry": pets(classes={"cat": {}}),
        "no descriptions": pets(classes={"cat": {"descriptions": []}}),
        "no classes": pets(classes={}), "a group": pets(classes={"cat": {"group": "small"}})}),
    Case("no templates", pets(templates=[]), OF_CAT[1:]),
    Case("another script", pets(classes={"cat": {"name": "猫"}}), ["a pet, a 猫."]),
    Case("braces in a name", pets(classes={"cat": {"name": "{0}"}}), ["a pet, a {0}."]),
    Case("a hard space", pets(templates=["a\u00a0{}."]), ["a\u00a0cat.", OF_CAT[1]]),
    Case("10^5 letters", pets(templates=["x" * 10 ** 5 + " {}"]),
         ["x" * 10 ** 5 + " cat", OF_CAT[1]]),
    *refused("needs the keys", {
        "a key less": pets().replace("templates", "template"), "a list": "[]", "a text": '"Pet"',
        "a number": "3", "null": "null", "a key more": pets(source="the web"), "no keys": "{}",
        "one inside the other": json.dumps({"Pet": json.loads(pets())})}),
    *refused("domain must be a name", {
        f"the domain {value!r}": pets(domain=value) for value in (
            "", "  ", 3, None, True, ["Pet"], {}, "a\0b", "a\nb", "\ud800", "\ufeffPet")}),
    *refused("templates must be a list of texts", {
        f"the templates {value!r}": pets(templates=value) for value in (
            "a {}.", None, 3, {"a {}.": 1}, ["a {}.", 3], ["a {}.", None], [["a {}."]], [""],
            [" "], ["a\0{}"], ["\udfff{}"], ["a\x1b[31m {}"])}),
    *refused(r"must have exactly one \{\}", {
        f"the template {text[:30]!r}": pets(templates=["a {}.", text]) for text in (
            "a photo.", "{} and {}", "{0}", "{name}", "{{}}", "{} }", "{", "{0.__class__}", "{!r}",
            "{:>1000000000}", "{}{}", "x" * 10 ** 6)}),
    *refused("classes must map names to entries", {
        f"the classes {value!r}": pets(classes=value) for value in (
            [], ["cat"], "cat", None, 3, [["cat", {}]])}),
    *refused("may have name, group and descriptions", with_classes("an entry", [
        {"cat": value} for value in (
            [], None, "a cat", 3, {"description": []}, {"Name": "x"}, {"": 1})])),
    *refused("descriptions must be a list of texts", with_classes("descriptions", [
        {"cat": {"descriptions": value}} for value in (
            "a cat.", None, 3, {}, [3], [None], [""], ["\t"], [["a"]], ["a\0"], ["\ud83d"])])),
    *refused("name must be a text", with_classes("a name", [
        {"cat": {key: value}} for key in ("name", "group")
        for value in ("", " ", 3, None, ["a"], {}, "\0", "a\nb")])),
    *refused("the class name .* must be a text", with_classes("a class name", [
        {"": {}}, {" ": {}}, {"a\0": {}}, {"\ud800": {}}])),
    *refused("are the same", with_classes("a class twice", [
        {"cat": {}, "Cat": {}}, {"big cat": {}, "big_cat": {}}])),
    *refused("is listed twice", {
        "a key twice": pets()[:-1] + ', "domain": "Pet"}',
        "a class twice": '{"domain": "Pet", "templates": [], "classes": {"a": {}, "a": {}}}',
        "10^5 classes twice": pets(classes={f"cat {i}": {} for i in range(10 ** 5)})[:-2]
        + ', "cat 0": {}}}'}),
    *refused("the domain 'GENERAL' has another file", {"a domain twice": pets(domain="GENERAL")}),
    *refused("nested more than 20 deep", {
        "deep lists": "[" * 10 ** 5, "deep objects": '{"a":' * 10 ** 5,
        "deep templates": pets(templates=0).replace("0", "[" * 10 ** 5 + "]" * 10 ** 5)}),
    *refused("cannot read the prompts", {
        "empty": "", "blank": " \n", "an open brace": pets()[:-1], "two objects": pets() * 2,
        "a comma more": pets()[:-1] + ",}", "single quotes": pets().replace('"', "'"),
        "a comment": "// pets\n" + pets(), "a tab in a text": pets(domain="a\tb").replace(
            "\\t", "\t"), "5,000 digits": pets(templates=0).replace("0", "9" * 5000),
        "NUL": pets() + "\0", "a bad escape": pets().replace("whiskers", "\\x41"),
        "latin-1": pets(domain="é").replace("\\u00e9", "é").encode("latin-1"),
        "UTF-16": pets().encode("utf-16"), "UTF-32": pets().encode("utf-32"),
        "YAML": "domain: Pet\ntemplates: []\nclasses: {}\n"}),
    *refused("cannot read the prompts|needs the keys", {
        "a number of no end": "1e999", "NaN": "NaN", "infinity": "-Infinity"}),
    *refused("cannot read the prompts", {k: v for k, v in NO_FILES.items() if k != "no file"}),
    *refused("cannot read the prompts", OTHER_FORMATS),
]

"""`classes.txt`, `train.txt`, label files and entries: what is written in them."""

import os

from data.lists import ClassName
from tests.corpus import NO_FILES, OTHER_FORMATS, Case, handled, refused

N_LINES = 10 ** 6
CAT, DOG = ClassName("Animal", "cat"), ClassName("Animal", "dog")
TEXT = "Animal_cat 0\nAnimal_dog 1\n"


def one(name, domain="Animal"):
    return [ClassName(domain, name)]


def encodings(text):
    """{encoding: the text in it}, none of which is ours."""
    return {name: text.encode(name) for name in (
        "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp037")}


# Read with `read_classes`.
CLASSES = [
    *handled([CAT, DOG], {
        "plain": TEXT, "byte-order mark": "\ufeff" + TEXT, "CRLF": TEXT.replace("\n", "\r\n"),
        "CR": TEXT.replace("\n", "\r"), "no last line end": TEXT.rstrip("\n"),
        "blank lines": "\n \n" + TEXT.replace("\n", "\n\n\t\n"),
        "tabs": TEXT.replace(" ", "\t"), "wide spaces": TEXT.replace(" ", "\u3000"),
        "indented": "  " + TEXT.replace("\n", "  \n\t"),
        "unordered": "Animal_dog 1\nAnimal_cat 0\n", "zeros before": TEXT.replace("1", "0001"),
        "two underscores": TEXT.replace("_", "__"), "one at the end": TEXT.replace(" ", "_ ")}),
    Case("one class", "Animal_cat 0", [CAT]),
    Case("no domain", "cat 0", one("cat", "")),
    Case("an empty domain", "_cat 0", one("cat", "")),
    Case("another script", "动物_大熊猫 0", one("大熊猫", "动物")),
    Case("joined characters", "Animal_\U0001f415\u200d\U0001f9ba 0",
         one("\U0001f415\u200d\U0001f9ba")),
    Case("a number at the end", "Car_Audi TT 2012 0", one("Audi TT 2012", "Car")),
    Case("a hard space", "Animal_polar\u00a0bear 0", one("polar\u00a0bear")),
    Case("a line separator in a name", "Animal_polar\u2028bear 0", one("polar\u2028bear")),
    Case("quotes and braces", "Animal_'{0}' %s 0", one("'{0}' %s")),
    Case("a name of 10^5 letters", f"Animal_{'x' * 10 ** 5} 0", one("x" * 10 ** 5)),
    Case("10^6 lines", "".join(f"A_{i} {i}\n" for i in range(N_LINES)),
         [ClassName("A", str(i)) for i in range(N_LINES)]),
    *refused("is empty", {"empty": "", "blank": "\n \r\n\t\n", "a mark alone": "\ufeff"}),
    *refused("not UTF-8 text|has the character|not of the form", encodings(TEXT)),
    *refused("not UTF-8 text", {
        "latin-1": "Food_crème 0".encode("latin-1"), "GBK": "动物_大熊猫 0".encode("gbk"),
        "a surrogate": b"Animal_\xed\xa0\x80 0", "half a character": "Food_é".encode()[:-1]}),
    *refused("line 2: .* has the character", {
        "NUL": "A_a 0\nA_b\0 1", "escape sequence": "A_a 0\nA_\x1b[31mb 1",
        "vertical tab": "A_a 0\nA_b\x0bc 1", "two files joined": "A_a 0\n\ufeffA_b 1",
        "a tab in a name": "A_a 0\nA_b\tc 1", "next line": "A_a 0\nA_b\x85c 1"}),
    *refused("line 2: .* not of the form", {
        "negative": "A_a 0\nA_b -1", "plus": "A_a 0\nA_b +1", "float": "A_a 0\nA_b 1.0",
        "exponent": "A_a 0\nA_b 1e0", "hexadecimal": "A_a 0\nA_b 0x1", "word": "A_a 0\nA_b one",
        "Arabic digits": "A_a 0\nA_b ١", "wide digits": "A_a 0\nA_b １",
        "superscript": "A_a 0\nA_b ¹", "10 digits": "A_a 0\nA_b 1000000000",
        "5,000 digits": "A_a 0\nA_b " + "1" * 5000, "no label": "A_a 0\nA_b",
        "label alone": "A_a 0\n1", "label first": "A_a 0\n1 A_b", "commas": "A_a 0\nA_b,1",
        "a comment": "A_a 0\nA_b 1 # new", "10^6 spaces": "A_a 0\nA_b" + " " * 10 ** 6 + "x"}),
    *refused("line 1: .* not of the form", {
        "header": "class label\n" + TEXT, "JSON": '{"Animal_cat": 0}'}),
    *refused("line 2: .* has no name after the prefix", {
        "no name": "A_a 0\nA_ 1", "underscores alone": "A_a 0\n___ 1",
        "a wide space alone": "A_a 0\nA_\u3000_ 1"}),
    *refused("line 2: label 0 is already 'cat'", {"label twice": "A_cat 0\nA_dog 0\n"}),
    *refused("line 2: a class is listed twice", {
        "class twice": "A_cat 0\nA_cat 1", "in other case": "A_cat 0\na_Cat 1",
        "with a space": "A_big_cat 0\nA_big cat 1"}),
    *refused("labels must be 0 to 1; 1 is missing", {"gap": "A_a 0\nA_b 2\n"}),
    *refused("labels must be 0 to 1; 0 is missing", {"from 1": "A_a 1\nA_b 2\n"}),
    *refused("line 1000000: ", {"a bad line after 10^6": "".join(
        f"A_{i} {i}\n" for i in range(N_LINES - 1)) + "A_x\n"}),
    *refused("cannot read", NO_FILES),
    *refused("not UTF-8|not of the form|has the character", OTHER_FORMATS),
]

def listed(*texts):
    return "".join(f"{text} {label}\n" for label, text in enumerate(texts))


def named(*pairs):
    """Classes of 'domain_name', where a domain may be empty."""
    return [ClassName(*pair.split("_")) for pair in pairs]


DECIDES = ".*; data.domains=true .* data.domains=false"
# Read with `read_classes`, domains None, where animal, food-101 and dog are known ones.
CLASSES_WITHOUT_DOMAINS = [
    # All that follows was read so before names without domains were.
    Case("known domains", listed("Animal_cat", "ANIMAL_polar_bear", "Food-101_pie"),
         named("Animal_cat", "ANIMAL_polar bear", "Food-101_pie")),
    Case("one class of a known domain", listed("Dog_pug"), named("Dog_pug")),
    Case("mostly known ones", listed("Animal_cat", "Animal_dog", "Dog_pug", "Car_van", "Car_bus"),
         named("Animal_cat", "Animal_dog", "Dog_pug", "Car_van", "Car_bus"),
         r"before the underscore \('Car'\) is taken as the domain" + DECIDES),
    Case("no underscore", listed("cat", "dog", "bear"), named("_cat", "_dog", "_bear")),
    Case("an empty domain", listed("_cat"), named("_cat")),
    Case("domains that are shared", listed("Bird_robin", "Bird_crow", "Tool_saw", "tool_axe"),
         named("Bird_robin", "Bird_crow", "Tool_saw", "tool_axe"),
         r"before the underscore \('Bird', 'Tool', 'tool'\) is taken" + DECIDES),
    Case("a domain and a plain name", listed("Animal_cat", "pebble"),
         named("Animal_cat", "_pebble"), r"before the underscore \('Animal'\) is taken" + DECIDES),
    # Names of two words.
    Case("no prefix twice", listed("Polar_bear", "hot_dog", "carrot_cake", "chocolate_cake"),
         named("_Polar bear", "_hot dog", "_carrot cake", "_chocolate cake"),
         "4 names are kept whole, such as 'Polar bear'" + DECIDES),
    Case("a first word that two share", listed("hot_dog", "hot_pot", "polar_bear"),
         named("_hot dog", "_hot pot", "_polar bear"), "3 names are kept whole, such as 'hot dog'"),
    Case("a first word that two share, and a plain name", listed("hot_dog", "hot_pot", "pizza"),
         named("_hot dog", "_hot pot", "_pizza"), "2 names are kept whole"),
    Case("dishes", listed(
        "apple_pie", "chicken_curry", "chicken_wings", "chocolate_cake", "chocolate_mousse",
        "baklava", "french_fries", "french_onion_soup", "red_velvet_cake"), named(
        "_apple pie", "_chicken curry", "_chicken wings", "_chocolate cake", "_chocolate mousse",
        "_baklava", "_french fries", "_french onion soup", "_red velvet cake"),
        "8 names are kept whole, such as 'apple pie'"),
    Case("one name", listed("polar_bear"), named("_polar bear"), "1 names are kept whole"),
    Case("known ones among others", listed("Animal_cat", "Animal_dog", "Polar_bear", "hot_dog"),
         named("Animal_cat", "Animal_dog", "_Polar bear", "_hot dog"),
         r"2 names are kept whole, such as 'Polar bear', and what is before .* \('Animal'\)"),
    Case("words that more lists hold", listed(*(f"domain{i}_x" for i in range(5))),
         named(*(f"_domain{i} x" for i in range(5))), "5 names are kept whole"),
    Case("numbers before a dot", listed("1.cat", "02. dog", "n02085620-pug"),
         named("_cat", "_dog", "_pug"), "3 class names .* '1.cat' is 'cat'"),
    Case("numbers that tell names apart", listed("1.cat", "2.cat", "3.5 t", "4.", "n02085620"),
         named("_1.cat", "_2.cat", "_3.5 t", "_4.", "_n02085620")),
    *refused("line 2: a class is listed twice", {
        "whole names twice": listed("polar_bear", "Polar bear", "hot_dog")}),
    *refused("line 1: .* has no name after the prefix", {"no name": listed("polar_", "hot_dog")}),
]

# Read with `read_samples` beside Dataset/TrainSet/A/{a, b}.jpg, whose labels are below 3.
A, B = "Dataset/TrainSet/A/a.jpg", "Dataset/TrainSet/A/b.jpg"
BOTH = [(A, 0), (B, 2)]


def row(path, label=0):
    return f"{path} {label}\n"


TRAIN = [
    *handled([(A, 0)], {
        f"written {path}": row(path) for path in (
            "A/a.jpg", "./A/a.jpg", "A//a.jpg", "A/../A/a.jpg", "A/a.jpg/", "TrainSet/A/a.jpg",
            "TrainSet/TrainSet/A/a.jpg", "Dataset/TrainSet/A/a.jpg",
            "Dataset/TrainSet/TrainSet/A/a.jpg", "other/Dataset/TrainSet/A/a.jpg",
            "TrainSet/A/../../TrainSet/A/a.jpg", "A\\a.jpg", "TrainSet\\A\\a.jpg", ".\\A\\a.jpg",
            "Dataset\\TrainSet\\A\\a.jpg", "TrainSet/A\\a.jpg", "A\\..\\A\\a.jpg")}),
    *[Case(f"of another machine: {path}", row(path), [(A, 0)], "1 paths start where nothing is")
      for path in ("/TrainSet/A/a.jpg", "/home/x/Dataset/TrainSet/A/a.jpg", "C:/x/TrainSet/A/a.jpg",
                   "C:\\Dataset\\TrainSet\\A\\a.jpg", "d:\\TrainSet\\TrainSet\\A\\a.jpg",
                   "\\\\server\\x\\TrainSet\\A\\a.jpg")],
    *handled(BOTH, {
        "plain": row("A/a.jpg") + row("A/b.jpg", 2), "CRLF": "A/a.jpg 0\r\n\r\nA/b.jpg 2\r\n",
        "byte-order mark": "\ufeffA/a.jpg 0\nA/b.jpg 2", "tabs": "A/a.jpg\t0\nA/b.jpg\t2\t\n"}),
    *[Case(f"called {name!r}", row(f"A/{name}"), [(f"Dataset/TrainSet/A/{name}", 0)])
      for name in ("a b.jpg", "熊.jpg", "-rf.jpg", "[a].jpg", "%s.jpg", "a\u2028b.jpg", "1 2.jpg",
                   "a\\b.jpg", "~.jpg", "link.jpg")],
    Case("in the folder, not in TrainSet", row("Dataset/c.jpg"), [("Dataset/c.jpg", 0)]),
    Case("in the working folder", row("elsewhere/d.jpg"), [("elsewhere/d.jpg", 0)]),
    Case("twice", row("A/a.jpg") * 2 + row("A/b.jpg", 2), BOTH, warning="1 lines .*line 2; "),
    Case("twice, written differently", row("A/a.jpg") + row("TrainSet/A/a.jpg"), [(A, 0)],
         warning="1 lines .*line 2; "),
    Case("10^6 lines", row("A/a.jpg") * N_LINES, [(A, 0)], warning="999999 lines .*line 2; "),
    *refused("line 1: .* leaves the data's folders", {
        f"leaving by {path[:40]}": row(path) for path in (
            "../secret.jpg", "../../secret.jpg", "A/../../../secret.jpg", "..", "/etc/hostname",
            "TrainSet/../../secret.jpg", "../Dataset/TrainSet/A/a.jpg", "..\\secret.jpg",
            "..\\..\\secret.jpg", "A\\..\\..\\..\\secret.jpg", "C:\\secret.jpg", "\\etc\\hostname",
            "\\\\server\\a.jpg", "/TrainSet/../etc/hostname",
            "C:\\x\\TrainSet\\..\\..\\..\\secret.jpg",
            "../TrainSet/A/a.jpg", "../" * 5000 + "etc/hostname", "//etc/hostname")}),
    *refused("line 1: no image", {
        f"missing: {name[:40]}": row(name) for name in (
            "A/none.jpg", "A", "A/gone.jpg", "A/loop.jpg", "A/A.JPG", "A/pipe.jpg", "*.jpg",
            "http://example.org/a.jpg", "~/a.jpg", "$HOME/a.jpg", "A\\none.jpg", "'A/a.jpg'",
            "/x/TrainSet/A/none.jpg", "C:\\TrainSet\\A\\none.jpg",
            "x" * 5000, "A/" * 2000 + "a.jpg", "secret.jpg", "A/TrainSet/../secret.jpg", "file:///etc/hostname")}),
    *refused(r"line 2: label \d+ is outside the class list \(0 to 2\)", {
        "label outside": row("A/a.jpg") + row("A/b.jpg", 3),
        "label of 9 digits": row("A/a.jpg") + row("A/b.jpg", "9" * 9)}),
    *refused("line 2: .* has another label above, 0", {
        "two labels": row("A/a.jpg") + row("A/a.jpg", 1),
        "two labels, written differently": row("A/a.jpg") + row("TrainSet/A/a.jpg", 1)}),
    *refused("line 2: .* not of the form", {
        name: row("A/a.jpg") + row("A/b.jpg", label) for name, label in {
            "negative": -1, "float": "1.0", "word": "dog", "no label": "", "10 digits": "9" * 10,
            "5,000 digits": "9" * 5000, "a broken line": "\n1"}.items()}),
    *refused("line 1: .* has the character", {
        "NUL": row("A/a\0.jpg"), "escape sequence": row("A/\x1b[2Ja.jpg")}),
    *refused("not UTF-8 text|has the character|not of the form|no image", encodings(
        row("A/a.jpg"))),
    *refused("not UTF-8 text", {"latin-1": row("A/é.jpg").encode("latin-1")}),
    *refused("is empty", {"empty": ""}),
    *refused("cannot read", NO_FILES),
    *refused("not UTF-8|not of the form|has the character", OTHER_FORMATS),
]


def training_images(place):
    """The images that `TRAIN` speaks of; `place` is a new folder."""
    images = place / "Dataset" / "TrainSet" / "A"
    images.mkdir(parents=True)
    (place / "elsewhere").mkdir()
    names = [case.result[0][0] for case in TRAIN if case.result]
    for name in {*names, B, "../secret.jpg"}:
        (place / name).write_bytes(b"")
    (images / "link.jpg").unlink()
    (images / "link.jpg").symlink_to(place.parent / "secret.jpg")  # the disk's owner may
    (images / "gone.jpg").symlink_to("nowhere")
    (images / "loop.jpg").symlink_to("loop.jpg")
    os.mkfifo(images / "pipe.jpg")


# Read with `read_labels`; labels are below 3.
LABELS = [
    *handled({"a.jpg": 0, "b c.jpg": 2}, {
        "plain": "a.jpg 0\nb c.jpg 2\n", "with folders": "TestSetB/a.jpg 0\nx/y/b c.jpg 2",
        "byte-order mark": "\ufeffa.jpg 0\r\nb c.jpg 2", "tabs": "a.jpg\t0\nb c.jpg\t2",
        "the same line twice": "a.jpg 0\nb c.jpg 2\na.jpg 0\n"}),
    Case("10^6 lines", "".join(f"{i}.jpg {i % 3}\n" for i in range(N_LINES)),
         {f"{i}.jpg": i % 3 for i in range(N_LINES)}),
    *refused("line 2: .* leaves the folder", {
        "going up": "a.jpg 0\n../b.jpg 1", "absolute": "a.jpg 0\n/tmp/b.jpg 1",
        "up, later": "a.jpg 0\nx/../../b.jpg 1"}),
    *refused("line 2: .* has another label above, 0", {
        "two labels": "a.jpg 0\na.jpg 1", "two labels, in folders": "x/a.jpg 0\ny/a.jpg 1"}),
    *refused(r"line 2: label 3 is outside the class list \(0 to 2\)", {"outside": "a 0\nb 3"}),
    *refused("line 2: .* not of the form", {
        "negative": "a.jpg 0\nb.jpg -1", "word": "a.jpg 0\nb.jpg cat", "none": "a.jpg 0\nb.jpg",
        "two columns of labels, with commas": "a.jpg 0\nb.jpg 0,1"}),
    *refused("line 2: .* has the character", {"NUL": "a.jpg 0\nb\0.jpg 1"}),
    *refused("not UTF-8 text|has the character|not of the form", encodings("a.jpg 0\n")),
    *refused("is empty", {"empty": ""}),
    *refused("cannot read", NO_FILES),
    *refused("not UTF-8|not of the form|has the character", OTHER_FORMATS),
]

# Read with `check_entry` of these images and 10 classes.
IMAGES = ["a.jpg", "b c.jpg"]
ENTRY = "a.jpg 0 1 2 3 4\nb c.jpg 9 8 7 6 5\n"
ENTRIES = [
    *handled(None, {
        "plain": ENTRY, "CRLF": ENTRY.replace("\n", "\r\n"), "no last line end": ENTRY[:-1],
        "the other way round": "b c.jpg 9 8 7 6 5\na.jpg 0 1 2 3 4\n",
        "zeros before": ENTRY.replace("9", "009")}),
    *refused("line 1: .* is not an image and 5 labels", {
        "four labels": ENTRY.replace(" 4", ""), "a comma": ENTRY.replace("0 1", "0,1"),
        "tabs": ENTRY.replace(" ", "\t"), "negative": ENTRY.replace(" 4", " -4"),
        "a word": ENTRY.replace(" 4", " four"), "float": ENTRY.replace(" 4", " 4.0"),
        "Arabic digits": ENTRY.replace("4", "٤"), "5,000 digits": ENTRY.replace("4", "4" * 5000),
        "a space at the end": ENTRY.replace(" 4", " 4 "), "two spaces": ENTRY.replace(" 4", "  4"),
        "a blank line first": "\n" + ENTRY, "a header": "image labels\n" + ENTRY,
        "probabilities": ENTRY.replace(" 4", " 0.4")}),
    *refused("line 1: .* is no test image", {
        "another name": ENTRY.replace("a.jpg", "x.jpg"), "a folder": "TestSetB/" + ENTRY,
        "no ending": ENTRY.replace("a.jpg", "a"), "byte-order mark": "\ufeff" + ENTRY,
        "six labels": ENTRY.replace(" 4", " 4 5"), "NUL": "\0" + ENTRY,
        "in other case": ENTRY.replace("a.jpg", "A.jpg"), "labels alone": "x 0 1 2 3 4\n"}),
    *refused("line 2: a label is there twice", {
        "a label twice": ENTRY.replace("5\n", "9\n"),
        "twice in two ways": ENTRY.replace("5", "09")}),
    *refused(r"line 2: label 10 is outside .* \(0 to 9\)", {"outside": ENTRY.replace("5", "10")}),
    *refused("line 3: 'a.jpg' has a line above", {"a line twice": ENTRY + ENTRY}),
    *refused("no line for 1 of 2 test images, such as 'b c.jpg'", {
        "a missing line": ENTRY.splitlines(True)[0]}),
    *refused("no line for 2 of 2", {"empty": ""}),
    *refused("not UTF-8 text|not an image", encodings(ENTRY)),
    *refused("cannot read .* run test.py first", NO_FILES),
    *refused("not UTF-8 text|not an image", OTHER_FORMATS),
]

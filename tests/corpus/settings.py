"""Config files: YAML of every kind."""

from tests.corpus import NO_FILES, OTHER_FORMATS, Case, handled, refused

DEEP = 10 ** 5


def settings(dotted_key, *values):
    """{what it sets: a file that sets a key to this YAML} for each of the values."""
    section, key = dotted_key.split(".")
    return {f"{dotted_key} = {value[:30]}": f"{section}: {{{key}: {value}}}" for value in values}


def bomb(first, line, last):
    """Ten lines, each of which names the one before nine times."""
    lines = [f"a0: &a0 {first}"] + [
        f"a{i}: &a{i} " + line.format(", ".join([f"*a{i - 1}"] * 9)) for i in range(1, 10)]
    return "\n".join([*lines, last])


# Read with `load_config`; the result is what differs from the defaults.
CONFIGS = [
    *handled({}, {
        "empty": "", "a comment": "# nothing\n", "a mark alone": "\ufeff", "one document": "---\n",
        "null": "null\n", "an empty mapping": "{}\n", "no keys in a section": "lora: {}\n"}),
    *handled({"lora": {"rank": 2}}, {
        "plain": "lora:\n  rank: 2\n", "flow style": "{lora: {rank: 2}}",
        "JSON": '{"lora": {"rank": 2}}', "CRLF": "lora:\r\n  rank: 2\r\n",
        "a mark": "\ufefflora: {rank: 2}", "hexadecimal": "lora: {rank: 0x2}",
        "octal": "lora: {rank: 02}", "binary": "lora: {rank: 0b10}",
        "a tag that fits": "lora: {rank: !!int '2'}",
        "an anchor that nobody uses": "lora: &x {rank: 2}",
        "comments": "lora:   # LoRA\n    rank:   2  # small\n",
        "a merge without an alias": "lora:\n  <<: {rank: 2}\n"}),
    Case("a float as an integer", "lora: {alpha: 2}", {"lora": {"alpha": 2.0}}),
    Case("a float without a point", "lora: {lr: 2e-5}", {"lora": {"lr": 2e-5}}),
    Case("a float in quotes", "lora: {lr: '0.5'}", {"lora": {"lr": 0.5}}),
    Case("block numbers", "lora: {positions: [0, 1]}", {"lora": {"positions": [0, 1]}}),
    Case("a file of shots anywhere", "data: {shots_file: ../s.txt}",
         {"data": {"shots_file": "../s.txt"}}),
    Case("a path in root", "data: {labels: a/../labels.txt}",
         {"data": {"labels": "a/../labels.txt"}}),
    Case("another script", "prompt: {init: ein Foto für 猫}",
         {"prompt": {"init": "ein Foto für 猫"}}),
    Case("the largest seed", f"seed: {2 ** 32 - 1}", {"seed": 2 ** 32 - 1}),
    Case("folded text", "prompt:\n  init: >-\n    a photo\n    of\n",
         {"prompt": {"init": "a photo of"}}),
    *refused("unknown config key", {
        "an unknown section": "laro: {rank: 2}", "an unknown key": "lora: {rnak: 2}",
        "upper case": "LORA: {rank: 2}", "a number as a key": "lora: {1: 2}",
        "null as a key": "lora: {null: 2}", "a key of 10^6 letters": f"? {'k' * 10 ** 6}\n: 1",
        "a dotted key": "lora.rank: 2", "a key in no section": "rank: 2", "true": "true: 1",
        "an empty key": "'': 1", "a date as a key": "2024-01-01: 1",
        "a merge of merges": "<<: {<<: {<<: {x: 1}}}"}),
    *refused("must be a", {
        **settings("lora.rank", "2.0", "two", "true", "null", "[2]", "{a: 2}", "2024-01-01",
                   "!!binary aGk=", "!!set {a, b}", "'2'", "[" * 9 + "]" * 9),
        **settings("lora.alpha", ".nan", ".inf", "-.inf", "1e999", "false", "big", "9" * 400),
        **settings("lora.encoder", "no", "3", "~", "0x" + "f" * 5000),
        **settings("lora.params", "q", "[1]", "[[q]]"),
        **settings("lora.positions", "[true]", "[0.5]", "7"),
        **settings("train.scale", "0.5", "[a, b]", "[.nan, 1]"),
        **settings("data.sample", "1", "'false'"), **settings("data.root", "1"),
        **settings("data.classes", f"[{'x' * 10 ** 5}]"),
        **settings("data.labels", "3", "[a]"), **settings("data.shots_file", "false"),
        **settings("prompts.max_tokens", "many", "1.5"),
        **settings("head.weight_decay", "high", ".nan")}),
    *refused("must be at least|must be at most|must not be empty|must have 2", {
        **settings("lora.rank", "0", "-1"), **settings("lora.lr", "-1e-4"),
        **settings("lora.positions", "[-1]", "[]"), **settings("lora.params", "[]"),
        **settings("train.scale", "[]", "[0.5]", "[0.1, 2]", "[-1, 1]"),
        **settings("mta.nearest", "1.5"), **settings("data.shots", "0"),
        **settings("prompts.max_tokens", "0"), **settings("ood.negative_share", "2")}),
    *refused("seed is .* at most 4294967295", {
        "a seed of 33 bits": f"seed: {2 ** 32}", "a seed of 20,000 bits": "seed: 0x" + "f" * 5000}),
    *refused("is a section", {
        "a section as a number": "lora: 4", "as null": "lora:", "as a list": "lora: [rank, 2]",
        "as a text": "lora: rank=2"}),
    *refused("leaves data.root", {
        **settings("data.classes", "../classes.txt", "/etc/passwd"),
        **settings("data.labels", "a/../../l.txt"), **settings("data.train_list", ".."),
        **settings("data.test_dir", "/", "a/b/../../..")}),
    *refused("has the character", {
        "NUL in a path": 'data: {root: "a\\0b"}', "a surrogate": 'data: {root: "\\ud800"}',
        "a line break in a path": 'data: {root: "a\\nb"}', "an escape": 'prompt: {init: "\\e"}'}),
    *refused("not valid: it must be a list of 'key: value' lines", {
        "a list": "- lora\n- data\n", "a word": "lora\n", "a number": "3\n", "a date": "2024-01-01",
        "key=value": "lora.rank=2\n", "bytes": "!!binary aGk=\n"}),
    *refused("not valid YAML", {
        "a tab": "lora:\n\trank: 4\n", "an open bracket": "lora: [1\n",
        "an open quote": 'lora: "x\n', "a bad indent": "lora:\n  rank: 2\n alpha: 1\n",
        "two documents": "lora: {rank: 2}\n---\nlora: {rank: 4}\n",
        "a control character": "lora: \x01\n", "a directive": "%YAML 9.9\n---\n",
        "an unhashable key": "? [a]\n: 1\n", "a colon": "prompt: {init: a: b: c}\n",
        "latin-1": "prompt: {init: café}".encode("latin-1"),
        "UTF-16": "lora: {rank: 2}".encode("utf-16"), "a bad bool": "lora: !!bool perhaps\n",
        "a bad int": "lora: {rank: !!int ''}\n", "a bad float": "lora: !!float x\n",
        "a bad date": "lora: 2024-13-45\n", "a bad timestamp": "lora: !!timestamp x\n",
        "bad base64": "lora: !!binary é\n", "5,000 digits": f"seed: {'9' * 5000}\n",
        "an unknown tag": "lora: !mine x\n", "a bad escape": 'lora: "\\q"\n'}),
    *refused("not valid YAML.*could not determine a constructor", {
        f"python/{tag[:40]}": f"lora: !!python/{tag}\n" for tag in (
            "object/apply:os.system ['true']", "name:os.system", "module:os", "tuple [1, 2]",
            "object/new:os.system ['true']", "object:os.stat_result {}", "bytes aGk=")}),
    *refused("is set twice", {
        "a key twice": "lora: {rank: 2, rank: 4}",
        "a section twice": "lora: {rank: 2}\ndata: {shots: 1}\nlora: {alpha: 2}\n",
        "twice by a merge": "lora: {rank: 2, <<: {rank: 4}}",
        "twice in two ways": "{1: a, 0x1: b}"}),
    *refused("has the alias", {
        "an alias": "lora: &x {rank: 2}\ndata: *x\n", "an alias of itself": "lora: &x [*x]\n",
        "an alias of nothing": "lora: *nobody\n",
        "a bomb of lists": bomb("[lol]", "[{}]", "lora: {positions: *a9}"),
        "a bomb of merges": bomb("{k: v}", "{{<<: [{}]}}", "lora: *a9"),
        "a bomb of texts": bomb("lol", "[{}]", "data: {root: *a9}")}),
    *refused("nested more than 20 deep", {
        "deep lists": "lora: " + "[" * DEEP, "deep mappings": "{a: " * DEEP,
        "deep blocks": "- " * DEEP + "x"}),
    *refused("cannot read the config", NO_FILES),
    *refused("is not valid", OTHER_FORMATS),
]

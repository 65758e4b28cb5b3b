"""A made-up run: what train.py and test.py leave in its folder, without a model."""

import numpy as np
from PIL import Image

from configs import load_config
from runs.log import RunLog
from runs.metrics import ABLATION_COLUMNS
from runs.record import crops_shown, thumbnail, write_record

CLASSES = [["Animal", "red fox"], ["Animal", "tree frog"], ["Object", "blue & <white> vase"],
           ["Object", "clock"], ["Car", "coupé"], ["Car", "van"]]
N_BASE = 4


def example_record(seed=0, labelled=True, N=120, **settings):
    """A record of `runs.record` of N images; `settings` are overrides of the config's keys."""
    rng = np.random.RandomState(seed)
    labels = rng.randint(len(CLASSES), size=N)
    is_base = labels < N_BASE
    base_label = np.where(is_base & (rng.rand(N) < 0.7), labels,
                          rng.randint(N_BASE, size=N))
    new_label = np.where(~is_base & (rng.rand(N) < 0.7), labels,
                         rng.randint(N_BASE, len(CLASSES), size=N))
    scores = rng.normal(2.0 * is_base - 1, 1).astype(np.float32)
    first = np.where(scores >= 0.1, base_label, new_label)
    rankings = np.array([[label, *(c for c in range(5) if c != label)][:5] for label in first])
    pixels = rng.randint(256, size=(20, 16, 16, 3)).astype(np.uint8)
    parts = ("zero-shot", "+ learned prompt", "+ LoRA", "+ head", "+ MTA", "+ OOD")
    return {
        "config": load_config(None, [f"seed={seed}", *(
            f"{key}={value}" for key, value in settings.items())]).to_dict(),
        "classes": CLASSES, "base": np.arange(N_BASE),
        "names": [f"image_{i}.png" for i in range(N)],
        "labels": labels if labelled else np.full(N, -1),
        "scores": scores, "threshold": 0.1, "rankings": rankings,
        "base_label": base_label, "new_label": new_label,
        "zero_shot_label": rng.randint(len(CLASSES), size=N),
        "confidence": rng.uniform(0.3, 1.0, N),
        "plain_confidence": rng.uniform(0.8, 1.0, N), "temperature": 1.7,
        "ablation": [[part, dict(zip(ABLATION_COLUMNS, [0.3 + 0.1 * i + 0.01 * seed] * 5))]
                     for i, part in enumerate(parts)] if labelled else [],
        "crops": [{"image": i, **crops_shown(pixels, rng.dirichlet(np.ones(20))),
                   "before": [0, 0.5], "after": [int(labels[i]), 0.9]} for i in range(min(4, N))],
        "pictures": {i: thumbnail(Image.fromarray(pixels[i % 20])) for i in range(N)},
        "versions": {"Python": "3.11.7"}, "seconds": 12.0}


def write_run(folder, seed=0, labelled=True, **settings):
    """A run folder with a log and a record."""
    log = RunLog(str(folder))
    log.begin("tune")
    for epoch in range(1, 7):
        learned = {"lr_prompt": 1e-4, "moved_prompt": 1 - 0.3 ** epoch} if epoch <= 3 else {}
        log.write(epoch=epoch, step=9 * epoch, loss=2 / epoch, accuracy=0.1 * epoch, images=40,
                  lr_lora=1e-3 / epoch, moved_lora=1 - 0.5 ** epoch, **learned)
    log.begin("head")
    for epoch in range(1, 11):
        log.write(epoch=epoch, loss=3 / epoch, moved_head=float(epoch - 1))
    record = example_record(seed, labelled, **settings)
    write_record(str(folder), record)
    log.begin("test")
    log.write(images=len(record["names"]))
    return str(folder)

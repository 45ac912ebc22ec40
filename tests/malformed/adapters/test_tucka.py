"""TuckA adapters whose files are sound and whose content is not, and their routes."""

from __future__ import annotations

import numpy as np

from tests.malformed.breaks import (
    config,
    drop,
    put,
    raw_config,
    setting,
    weights,
)
from tests.malformed.scene import Case, Cli, Scene, Table, cases, nothing, refuses_export

Q = "layer.0.query"

STATIC = "--mode static --route 0:0.5,0.5"
TUCKA: Table = {
    "no u": Case(weights("tucka", drop(f"{Q}.tucka_u")), 3, f"{Q}.tucka_u is missing"),
    "no core": Case(weights("tucka", drop(f"{Q}.tucka_g")), 3, f"{Q}.tucka_g is missing"),
    "a tensor too many": Case(
        weights("tucka", put(f"{Q}.tucka_x", np.ones(1, "f4"))), 3, f"unexpected tensors of {Q}: tucka_x"
    ),
    "a LoRA pair beside it": Case(
        weights("tucka", put(f"{Q}.lora_A.weight", np.ones((1, 1), "f4"))), 3, "unexpected tensors"
    ),
    "no centroids": Case(weights("tucka", drop(f"{Q}.tucka_ec")), 3, "tucka_ec at one router module, found it at 0"),
    "two routers": Case(
        weights("tucka", put("layer.0.dense.tucka_ec", np.ones((6, 12), "f4"))),
        3,
        "tucka_ec at one router module, found it at 2",
    ),
    "router elsewhere": Case(
        config("tucka", router_name="layer.0.dense"), 3, f"router_name is 'layer.0.dense', but {Q} has the centroids"
    ),
    "router a number": Case(config("tucka", router_name=1), 3, "router_name must be a module's name"),
    "centroids of fewer experts": Case(
        weights("tucka", put(f"{Q}.tucka_ec", lambda c: c[:4])), 3, "tucka_ec has shape [4, 10], expected [6, 10]"
    ),
    "centroids of another width": Case(
        weights("tucka", put(f"{Q}.tucka_ec", lambda c: c[:, :8])), 3, "tucka_ec has shape [6, 8], expected [6, 10]"
    ),
    "k": Case(config("tucka", k=4), 3, "tucka_g has shape [3, 2, 2, 2], expected [4, 2, 2, 2]"),
    "p": Case(config("tucka", p=1), 3, "tucka_g has shape [3, 2, 2, 2], expected [3, 1, 2, 2]"),
    "t": Case(config("tucka", t=3), 3, "tucka_c has shape [2, 2], expected [t, p]"),
    "r": Case(config("tucka", r=3), 3, "tucka_u has rank 2; adapter_config.json says r=3"),
    "k missing": Case(config("tucka", "k"), 3, "k must be a positive number, found None"),
    "k is text": Case(config("tucka", k="3"), 3, "k must be a positive number, found '3'"),
    "core not square": Case(
        weights("tucka", put(f"{Q}.tucka_g", lambda g: g[..., :1])), 3, "tucka_g has shape [3, 2, 2, 1]"
    ),
    "u of another rank": Case(weights("tucka", put(f"{Q}.tucka_u", lambda u: u[:, :1])), 3, "tucka_u has rank 1"),
    "alpha missing": Case(config("tucka", "alpha"), 3, "alpha must be a positive number, found None"),
    "alpha negative": Case(config("tucka", alpha=-8.0), 3, "alpha must be a positive number, found -8.0"),
    "alpha of 400 digits": Case(raw_config("tucka", "alpha", "1" * 400), 3, "alpha must be a positive number"),
    "u is zero": Case(
        weights("tucka", put(f"{Q}.tucka_u", np.zeros_like)), 3, "all zeros (or huge), which cannot be normalized"
    ),
    "one group is zero": Case(
        weights("tucka", put(f"{Q}.tucka_g", setting(1, 0.0))), 3, "all zeros (or huge), which cannot be normalized"
    ),
    "c is zero but for float64": Case(
        weights("tucka", put(f"{Q}.tucka_c", lambda c: c.astype("f8") * 1e-200)), 3, "cannot be normalized"
    ),
    "modules to save": Case(
        config("tucka", modules_to_save=["classifier"]), 3, "modules_to_save=['classifier'], but adapter_model.safe"
    ),
    "two adapters": Case(nothing, 2, "give one adapter folder", adapters="tucka tucka"),
    "no route": Case(nothing, 2, "needs --route GROUP:W1,W2,...", "--mode static"),
    "route is text": Case(nothing, 2, "expected GROUP:W1,W2,...", "--mode static --route best"),
    "route without weights": Case(nothing, 2, "expected GROUP:W1,W2,...", "--mode static --route 1:"),
    "route of a fraction": Case(nothing, 2, "expected GROUP:W1,W2,...", "--mode static --route 0.5:1,1"),
    "route NaN": Case(nothing, 2, "weights must be finite", "--mode static --route 0:nan,1"),
    "route past float32": Case(nothing, 6, "does not fit float32", "--mode conditioned --route 0:1e300,1"),
    "route with too few weights": Case(
        nothing, 2, "1 weights given; the adapter has 2 experts", "--mode static --route 0:1"
    ),
    "route of no group": Case(
        nothing, 2, "group 3 does not exist; the adapter has groups 0 to 2", "--mode conditioned --route 3:1,1"
    ),
    "route negative": Case(nothing, 2, "group -1 does not exist", "--mode conditioned --route -1:1,1"),
    "route of an unknown task": Case(nothing, 2, "names an unknown task 'x'", f"{STATIC} --route x=0:1,1"),
    "route of one task only": Case(
        nothing, 2, "freezing it for task 'b' needs --route", "--mode conditioned --tasks a,b --route a=0:1,1"
    ),
    "route twice": Case(nothing, 2, "--route is given twice", f"{STATIC} --route 1:1,1"),
    "route in dynamic mode": Case(nothing, 2, "--route freezes a route", "--mode dynamic --route 0:1,1"),
    "routing in static mode": Case(nothing, 2, "--routing is for --mode dynamic", f"{STATIC} --routing row"),
}


@cases(tucka=TUCKA)
def test_export(scene: Scene, cli: Cli, adapter: str, case: Case) -> None:
    refuses_export(scene, cli, adapter, case)

"""The words of ``eptx.json``: files, tensors, and the values that a field may have.

A method is any word in lower case (`Fields.name` in ``eptx/files/fields.py``), so no methods are listed here.
"""

from __future__ import annotations

SCHEMA_VERSION = 1
OPERATOR_DOMAIN = "ai.eptx"
OPERATOR_VERSION = 1
#: Domains that ONNX Runtime implements by itself.
ORT_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")

MANIFEST_FILE = "eptx.json"
MODEL_FILE = "model.onnx"
REPORT_FILES = ("validation.json", "report.html", "calibration.json", "calibration.html")

#: Prefixes of the inputs and outputs of a language model's cache.
PAST, PRESENT, CROSS = "past_key_values.", "present.", "cross."
#: The input of an encoder-decoder's decoder that says what of the text is no padding.
ENCODER_MASK = "encoder_attention_mask"

#: Tasks that no adapter has: one switches the adapter off, the other lets the model infer the task.
BASE_TASK, AUTO_TASK = "base", "auto"
#: The value of `TASK_ID` that stands for `AUTO_TASK`.
INFER = -1
#: What the caller may choose, and the outputs that say what was used.
TASK_ID, ROUTE_GROUP, ROUTE_WEIGHTS = "task_id", "route_group", "route_weights"
USED = "_used"
TASK_ID_USED = f"{TASK_ID}{USED}"
#: The input that is an image.
PIXELS = "pixel_values"
#: The output whose first numbers are a row's answer.
LOGITS = "logits"
#: The output that is one vector for each row, and the output that it is computed of: one vector for each token.
EMBEDDING, HIDDEN = "embedding", "last_hidden_state"
#: sentence-transformers' words for how tokens become one vector.
POOLINGS = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
#: Pillow's filters, by the number that an image processor's file has for each; and what becomes of transparency.
FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
ALPHA = ("drop", "white")
#: Red, green and blue.
CHANNELS = 3
#: What may follow a linear layer of an embedding, as torch.nn computes it.
ACTIVATIONS = ("identity", "tanh", "relu", "gelu", "sigmoid", "silu")

MODES = ("static", "conditioned", "dynamic")
PRECISIONS = ("fp32", "fp16", "int8", "int8-static", "int4", "mixed")
#: The precisions that quantize nothing.
FLOAT_PRECISIONS = ("fp32", "fp16")
#: How one product or table of a quantized bundle is stored; see docs/calibration.md. Calibration's own "int4" is no
#: scheme of a product: it names a whole graph that GenAI built.
SCHEMES = ("fp32", "fp16", "int8", "int8-static", "int8-blocks", "int4-blocks")
EXPORT_PROVIDERS = ("cpu", "cuda")
ROUTINGS = ("batch", "row", "prompt")
GENERATORS = ("decoder", "encoder-decoder")
#: transformers' words for what logits mean: values; one label of several; yes or no for each label.
REGRESSION, SINGLE_LABEL, MULTI_LABEL = PROBLEM_TYPES = (
    "regression",
    "single_label_classification",
    "multi_label_classification",
)
SIDES = ("left", "right")
TENSOR_DTYPES = ("float16", "float32", "float64", "int32", "int64", "bool")

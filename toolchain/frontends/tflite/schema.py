"""Facts of TFLite's schema (tflite-micro, tensorflow/compiler/mlir/lite/schema/schema.fbs): numbers of fields, types and operators.

Its one rule: a field's number is its place in its table, from 0; a letter is struct's, with the schema's default behind it.
"""

from __future__ import annotations

IDENTIFIER, VERSION = b"TFL3", 3

# tables
MODEL = {"version": 0, "operator_codes": 1, "subgraphs": 2, "buffers": 4, "signatures": 7}
CODE = {"deprecated_builtin": 0, "custom": 1, "builtin": 3}
SUBGRAPH = {"tensors": 0, "inputs": 1, "outputs": 2, "operators": 3}
TENSOR = {
    "shape": 0, "type": 1, "buffer": 2, "name": 3, "quantization": 4, "is_variable": 5, "sparsity": 6, "signature": 7, "external_buffer": 10,
}  # fmt: skip
QUANTIZATION = {"scale": 2, "zero_point": 3, "details_type": 4, "axis": 6}
OPERATOR = {"code": 0, "inputs": 1, "outputs": 2, "options_type": 3, "options": 4}
BUFFER = {"data": 0, "offset": 1}

TYPES = {
    0: "float32", 1: "float16", 2: "int32", 3: "uint8", 4: "int64", 5: "string", 6: "bool", 7: "int16", 8: "complex64", 9: "int8", 10: "float64",
    11: "complex128", 12: "uint64", 13: "resource", 14: "variant", 15: "uint32", 16: "uint16", 17: "int4", 18: "bfloat16", 19: "int2", 20: "uint4",
}  # fmt: skip
STORED = {
    "float32": "<f4",
    "int32": "<i4",
    "uint8": "<u1",
    "int64": "<i8",
    "bool": "<u1",
    "int16": "<i2",
    "int8": "<i1",
}
ACTIVATIONS = {0: "none", 1: "relu", 2: "relu_n1_to_1", 3: "relu6", 4: "tanh", 5: "sign_bit"}
PADDINGS = {0: "same", 1: "valid"}

# The first operators in the order of their numbers; what is newer is called by its number.
_NAMES = (
    "ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE EMBEDDING_LOOKUP FLOOR FULLY_CONNECTED "
    "HASHTABLE_LOOKUP L2_NORMALIZATION L2_POOL_2D LOCAL_RESPONSE_NORMALIZATION LOGISTIC LSH_PROJECTION LSTM MAX_POOL_2D MUL RELU RELU_N1_TO_1 "
    "RELU6 RESHAPE RESIZE_BILINEAR RNN SOFTMAX SPACE_TO_DEPTH SVDF TANH CONCAT_EMBEDDINGS SKIP_GRAM CALL CUSTOM EMBEDDING_LOOKUP_SPARSE PAD "
    "UNIDIRECTIONAL_SEQUENCE_RNN GATHER BATCH_TO_SPACE_ND SPACE_TO_BATCH_ND TRANSPOSE MEAN SUB DIV SQUEEZE UNIDIRECTIONAL_SEQUENCE_LSTM "
    "STRIDED_SLICE BIDIRECTIONAL_SEQUENCE_RNN EXP TOPK_V2 SPLIT LOG_SOFTMAX DELEGATE BIDIRECTIONAL_SEQUENCE_LSTM CAST PRELU MAXIMUM ARG_MAX "
    "MINIMUM LESS NEG PADV2 GREATER GREATER_EQUAL LESS_EQUAL SELECT SLICE SIN TRANSPOSE_CONV SPARSE_TO_DENSE TILE EXPAND_DIMS EQUAL NOT_EQUAL "
    "LOG SUM SQRT RSQRT SHAPE POW ARG_MIN FAKE_QUANT REDUCE_PROD REDUCE_MAX PACK LOGICAL_OR ONE_HOT LOGICAL_AND LOGICAL_NOT UNPACK REDUCE_MIN "
    "FLOOR_DIV REDUCE_ANY SQUARE ZEROS_LIKE FILL FLOOR_MOD RANGE RESIZE_NEAREST_NEIGHBOR LEAKY_RELU SQUARED_DIFFERENCE MIRROR_PAD ABS SPLIT_V "
    "UNIQUE CEIL REVERSE_V2 ADD_N GATHER_ND COS WHERE RANK ELU REVERSE_SEQUENCE MATRIX_DIAG QUANTIZE MATRIX_SET_DIAG ROUND HARD_SWISH IF WHILE "
    "NON_MAX_SUPPRESSION_V4 NON_MAX_SUPPRESSION_V5 SCATTER_ND SELECT_V2 DENSIFY SEGMENT_SUM BATCH_MATMUL PLACEHOLDER CUMSUM CALL_ONCE "
    "BROADCAST_TO RFFT2D CONV_3D IMAG REAL COMPLEX_ABS HASHTABLE HASHTABLE_FIND HASHTABLE_IMPORT HASHTABLE_SIZE REDUCE_ALL CONV_3D_TRANSPOSE "
    "VAR_HANDLE READ_VARIABLE ASSIGN_VARIABLE BROADCAST_ARGS RANDOM_STANDARD_NORMAL BUCKETIZE RANDOM_UNIFORM MULTINOMIAL GELU "
    "DYNAMIC_UPDATE_SLICE"
)
OPERATORS = tuple(_NAMES.split())

Field = tuple[str, int, str, float]  # name, number, letter, default
_WINDOW: tuple[Field, ...] = (("padding", 0, "b", 0), ("stride_w", 1, "i", 0), ("stride_h", 2, "i", 0))
_POOL: tuple[Field, ...] = (*_WINDOW, ("filter_w", 3, "i", 0), ("filter_h", 4, "i", 0), ("activation", 5, "b", 0))
_ACTIVATION: tuple[Field, ...] = (("activation", 0, "b", 0),)

# operator -> number of its options' table, its fields
OPTIONS: dict[str, tuple[int, tuple[Field, ...]]] = {
    "ADD": (11, _ACTIVATION),
    "AVERAGE_POOL_2D": (5, _POOL),
    "CONCATENATION": (10, (("axis", 0, "i", 0), ("activation", 1, "b", 0))),
    "CONV_2D": (1, (*_WINDOW, ("activation", 3, "b", 0), ("dilation_w", 4, "i", 1), ("dilation_h", 5, "i", 1))),
    "DEPTHWISE_CONV_2D": (
        2,
        (*_WINDOW, ("depth_multiplier", 3, "i", 0), ("activation", 4, "b", 0), ("dilation_w", 5, "i", 1), ("dilation_h", 6, "i", 1)),
    ),
    "FULLY_CONNECTED": (8, (("activation", 0, "b", 0), ("weights_format", 1, "b", 0))),
    "LEAKY_RELU": (75, (("alpha", 0, "f", 0.0),)),
    "MAX_POOL_2D": (5, _POOL),
    "MEAN": (27, (("keep_dims", 0, "b", 0),)),
    "MUL": (21, _ACTIVATION),
    "PACK": (59, (("values_count", 0, "i", 0), ("axis", 1, "i", 0))),
    "RESIZE_NEAREST_NEIGHBOR": (74, (("align_corners", 0, "b", 0), ("half_pixel_centers", 1, "b", 0))),
    "SOFTMAX": (9, (("beta", 0, "f", 0.0),)),
    "SPLIT": (35, (("num_splits", 0, "i", 0),)),
    "SPLIT_V": (79, (("num_splits", 0, "i", 0),)),
    "STRIDED_SLICE": (
        32,
        (("begin_mask", 0, "i", 0), ("end_mask", 1, "i", 0), ("ellipsis_mask", 2, "i", 0), ("new_axis_mask", 3, "i", 0),
         ("shrink_axis_mask", 4, "i", 0), ("offset", 5, "b", 0)),
    ),
    "SUB": (28, _ACTIVATION),
    "UNPACK": (64, (("num", 0, "i", 0), ("axis", 1, "i", 0))),
}  # fmt: skip

"""What an exported program (`.pt2`) of others may consist of: a grammar, by which its JSON is read and written anew.

torch evaluates expressions, imports what names name, calls any function as an
operator, and writes names into Python source when it loads a program. So it is
given what was understood here alone: what the grammar does not know is refused,
not skipped. It knows torch 2.8 and later (schema version 8).
"""

import ast
import json
import keyword
import re
from typing import Any, Callable, Dict, List, Optional, Tuple

Check = Callable[[Any], Any]

MOST_TEXT = 4096


class Refused(ValueError):
    """Holds what no plain program holds; `where` leads to it."""

    def __init__(self, what: str, *where: Any) -> None:
        super(Refused, self).__init__(what)
        self.what = what
        self.where = list(where)

    def __str__(self) -> str:
        return ": ".join([".".join(str(step) for step in self.where)] * bool(self.where) + [self.what])


def shown(text: Any) -> str:
    """Quote something of the file, on one line and short."""
    quoted = ascii(text)
    return quoted if len(quoted) <= 80 else quoted[:76] + "...'"


# ---------------------------------------------------------------- how a grammar is written


def read(content: bytes, check: Check) -> Any:
    """Write JSON anew by a grammar; no key twice, no number that JSON does not have."""

    def pairs(items: List[Tuple[str, Any]]) -> Dict[str, Any]:
        if len(dict(items)) != len(items):
            raise Refused("names a key twice")
        return dict(items)

    try:
        return check(json.loads(content.decode("utf-8"), object_pairs_hook=pairs, parse_constant=_exactly()))
    except Refused:
        raise
    except ValueError as error:
        raise Refused("is no JSON (%s)" % shown(str(error)))


def _words(pattern: str, what: str, most: int = MOST_TEXT) -> Check:
    known = re.compile(pattern, re.ASCII)

    def check(value: Any) -> Any:
        if not isinstance(value, str) or len(value) > most or not known.fullmatch(value):
            raise Refused("%s is no %s" % (shown(value), what))
        return value

    return check


def _whole(low: int, high: int) -> Check:
    def check(value: Any) -> Any:
        if type(value) is not int or not low <= value <= high:
            raise Refused("%s is no whole number from %d to %d" % (shown(value), low, high))
        return value

    return check


def _exactly(*allowed: Any) -> Check:
    def check(value: Any) -> Any:
        if not any(type(value) is type(each) and value == each for each in allowed):
            raise Refused("%s is not allowed" % shown(value))
        return value

    return check


def _maybe(check: Check) -> Check:
    return lambda value: None if value is None else check(value)


def _within(step: Any, check: Check, value: Any) -> Any:
    try:
        return check(value)
    except Refused as refused:
        raise Refused(refused.what, step if isinstance(step, int) else ascii(step)[1:-1][:60], *refused.where)


def _list(check: Check) -> Check:
    def checked(value: Any) -> Any:
        if not isinstance(value, list):
            raise Refused("%s is no list" % shown(value))
        return [_within(index, check, item) for index, item in enumerate(value)]

    return checked


def _mapping(key_check: Check, check: Check) -> Check:
    def checked(value: Any) -> Any:
        if not isinstance(value, dict):
            raise Refused("%s is no object" % shown(value))
        return {key_check(key): _within(key, check, item) for key, item in value.items()}

    return checked


def _record(needed: Dict[str, Check], others: Optional[Dict[str, Check]] = None) -> Check:
    """Check an object by its keys: those that must be there, those that may, and none besides."""
    known = dict(others or {}, **needed)

    def checked(value: Any) -> Any:
        if not isinstance(value, dict) or not set(needed) <= set(value):
            raise Refused("%s is no object with %s" % (shown(value), ", ".join(sorted(needed))))
        for key in value:
            if key not in known:
                raise Refused("%s is no key that is allowed" % shown(key))
        return {key: _within(key, known[key], item) for key, item in value.items()}

    return checked


def _one_of(kinds: Dict[str, Check]) -> Check:
    """Check an object of one key, which says what it holds."""

    def checked(value: Any) -> Any:
        if not isinstance(value, dict) or len(value) != 1 or not set(value) <= set(kinds):
            raise Refused("%s is not allowed" % shown(value))
        return {key: _within(key, kinds[key], item) for key, item in value.items()}

    return checked


# ---------------------------------------------------------------- sizes

CALLS = dict.fromkeys("Add Mul".split(), 64)
CALLS.update(dict.fromkeys("Min Max Mod PythonMod FloorDiv CleanDiv CeilDiv Equality Unequality LessThan GreaterThan".split(), 2))
CALLS.update(StrictLessThan=2, StrictGreaterThan=2)
"""The functions that sizes are computed with, and how many arguments each takes at most."""
SIGNS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.FloorDiv: "//", ast.Mod: "%"}  # type: Dict[Any, str]
COMPARISONS = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}  # type: Dict[Any, str]
SYMBOL = re.compile("s[0-9]{1,6}", re.ASCII)
ASSUMED = frozenset(("integer", "positive", "nonnegative"))


def expression(text: Any) -> str:
    """Write a size's expression anew from integers, symbols, arithmetic and comparisons; `Refused` for anything else."""
    if not isinstance(text, str) or len(text) > MOST_TEXT:
        raise Refused("%s is no expression" % shown(text))
    try:
        return _arithmetic(ast.parse(text, mode="eval").body)
    except (SyntaxError, ValueError, MemoryError) as error:
        raise Refused("%s is no arithmetic%s" % (shown(text), " (%s)" % error if isinstance(error, Refused) else ""))


def _arithmetic(node: Any) -> str:
    if isinstance(node, ast.Constant) and type(node.value) is int and node.value < 1 << 63:
        return str(node.value)
    if isinstance(node, ast.Name) and SYMBOL.fullmatch(node.id):
        return str(node.id)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return "(-%s)" % _arithmetic(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in SIGNS:
        return "(%s %s %s)" % (_arithmetic(node.left), SIGNS[type(node.op)], _arithmetic(node.right))
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in COMPARISONS:
        return "(%s %s %s)" % (_arithmetic(node.left), COMPARISONS[type(node.ops[0])], _arithmetic(node.comparators[0]))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return _call(node.func.id, node.args, node.keywords)
    raise Refused(type(node).__name__)


def _call(function: str, arguments: List[Any], keywords: List[Any]) -> str:
    first = arguments[0] if len(arguments) == 1 else None
    if function == "Symbol" and isinstance(first, ast.Constant) and isinstance(first.value, str):
        known = [str(each.arg) for each in keywords if isinstance(each.value, ast.Constant) and each.value.value is True]
        if SYMBOL.fullmatch(first.value) and len(known) == len(keywords) and set(known) <= ASSUMED:
            return "Symbol(%s)" % ", ".join(["'%s'" % first.value] + ["%s=True" % each for each in known])
    if function == "Integer" and first is not None and not keywords:
        whole = _arithmetic(first)
        if re.fullmatch(r"[0-9]+|\(-[0-9]+\)", whole):
            return "Integer(%s)" % whole
    if 0 < len(arguments) <= CALLS.get(function, 0) and not keywords:
        return "%s(%s)" % (function, ", ".join(_arithmetic(each) for each in arguments))
    raise Refused("%s()" % function[:40])


# ---------------------------------------------------------------- what a program consists of

OPERATORS = frozenset(
    """
    _adaptive_avg_pool2d _assert_tensor_metadata _log_softmax _native_batch_norm_legit_no_training _safe_softmax
    _scaled_dot_product_flash_attention_for_cpu _softmax _to_copy _unsafe_view abs adaptive_avg_pool1d adaptive_avg_pool2d
    adaptive_max_pool2d add addcdiv addcmul addmm alias all amax amin any arange argmax argmin avg_pool1d avg_pool2d baddbmm
    batch_norm bitwise_and bitwise_not bitwise_or bmm broadcast_tensors cat ceil celu channel_shuffle chunk clamp clamp_max
    clamp_min clone constant_pad_nd contiguous conv1d conv2d conv_transpose2d convolution copy cos cumsum detach div dropout
    einsum elu embedding eq erf exp expand expand_as eye feature_dropout fill flatten flip floor floor_divide full full_like
    gather ge gelu glu group_norm gt hardsigmoid hardswish hardtanh index index_select instance_norm layer_norm le
    leaky_relu lift_fresh_copy linalg_vector_norm linear linspace log log1p log_sigmoid log_softmax logical_and logical_not
    logical_or lt masked_fill matmul max max_pool1d max_pool2d max_pool2d_with_indices maximum mean meshgrid min minimum
    mish mm movedim mul narrow native_dropout native_group_norm native_layer_norm ne neg new_full new_ones new_zeros norm
    ones ones_like pad permute pixel_shuffle pixel_unshuffle pow prelu reciprocal relu relu6 remainder repeat
    repeat_interleave reshape rms_norm roll round rsqrt rsub scalar_tensor scaled_dot_product_attention select selu sigmoid
    sign silu sin slice softmax softplus split split_with_sizes sqrt squeeze stack std sub sum swapaxes sym_size t tanh
    threshold to topk transpose tril triu true_divide unbind unflatten unsqueeze upsample_bicubic2d upsample_bilinear2d
    upsample_nearest2d var var_mean view view_as where zeros zeros_like
    """.split()
)
"""Of `torch.ops.aten`; with `_` at the end, in place. None opens files, prints, takes an address or shows memory as it was."""
PLAIN_OPERATORS = frozenset("_operator." + each for each in "add sub mul floordiv mod eq ne le lt ge gt neg".split())
ATEN = re.compile(r"torch\.ops\.aten\.(_?[a-z][a-z0-9_]*)\.([A-Za-z][A-Za-z0-9_]*)", re.ASCII)
RESERVED = frozenset("self torch device inf nan NoneType fx_pytree pytree math operator".split()) | frozenset(keyword.kwlist)
"""What the source that torch writes of a program needs for itself."""


name = _words("(?!__)(?!(?:%s)$)[A-Za-z_][A-Za-z0-9_]{0,254}" % "|".join(sorted(RESERVED)), "plain name")
"""Of a node or an argument, which torch writes into source."""
path = _words(r"(?!__)[A-Za-z0-9_-]{1,200}(\.(?!__)[A-Za-z0-9_-]{1,200}){0,50}", "plain name of a weight or a layer")
INTEGER, SIZE, BOOL = _whole(-(1 << 63), (1 << 63) - 1), _whole(0, 1 << 40), _exactly(True, False)
WIDTHS = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 2, 7: 4, 8: 8, 12: 1, 13: 2}
"""Bytes of a number of each type that is allowed: no complex, packed or unknown ones."""
DEVICE = _record({"type": _exactly("cpu")}, {"index": _exactly(None, 0)})
EXPRESSION = _record({"expr_str": expression}, {"hint": _maybe(_one_of({"as_int": INTEGER, "as_bool": BOOL}))})
SYM_INT = _one_of({"as_expr": EXPRESSION, "as_int": SIZE})
SIZES = {"sizes": _list(SYM_INT), "strides": _list(SYM_INT), "storage_offset": SYM_INT}
META = _record(dict(SIZES, dtype=_exactly(*WIDTHS), requires_grad=BOOL, device=DEVICE, layout=_exactly(7)))
PAYLOAD = _record(
    {
        "path_name": _words("(weight|tensor)_[0-9]{1,6}", "name of plain weights"),
        "is_param": BOOL,
        "use_pickle": _exactly(False),
        "tensor_meta": META,
    }
)
CONFIG = _record({"config": _mapping(path, PAYLOAD)})
"""Which member is which weight."""


def number(value: Any) -> Any:
    """Check a number with a fraction; infinities are words in torch's JSON."""
    return value if type(value) in (int, float) else _exactly("Infinity", "-Infinity")(value)


TENSOR = _record({"name": name})
SYM_ARGUMENT = _one_of({"as_name": name, "as_int": INTEGER})
OPTIONAL = _one_of({"as_tensor": TENSOR, "as_none": BOOL})
ONE_TENSOR = _one_of({"as_tensor": TENSOR})
OUTPUTS = {
    "as_none": BOOL,
    "as_tensor": TENSOR,
    "as_tensors": _list(TENSOR),
    "as_sym_int": SYM_ARGUMENT,
    "as_sym_bool": _one_of({"as_name": name, "as_bool": BOOL}),
}
ARGUMENTS = dict(
    OUTPUTS,
    as_optional_tensors=_list(OPTIONAL),
    as_optional_tensor=OPTIONAL,
    as_int=INTEGER,
    as_ints=_list(INTEGER),
    as_float=number,
    as_floats=_list(number),
    as_bool=BOOL,
    as_bools=_list(BOOL),
    as_scalar_type=_exactly(*WIDTHS),
    as_memory_format=_exactly(1, 2, 4),
    as_layout=_exactly(7),
    as_device=DEVICE,
    as_sym_ints=_list(SYM_ARGUMENT),
)
"""No graphs, operators or objects; text only where an operator is known to take it."""
STRINGS = {
    "conv1d": _exactly("same", "valid"),
    "conv2d": _exactly("same", "valid"),
    "div": _exactly("floor", "trunc"),
    "einsum": _words(r"[A-Za-z ,.]{1,200}(->[A-Za-z .]{0,100})?", "plain equation"),
    "gelu": _exactly("none", "tanh"),
    "meshgrid": _exactly("ij", "xy"),
    "pad": _exactly("constant", "reflect", "replicate", "circular"),
}


def operator(target: Any) -> str:
    """Name a target's operator, without its overload; `Refused` unless plain networks need it."""
    if isinstance(target, str) and target in PLAIN_OPERATORS:
        return target
    match = ATEN.fullmatch(target) if isinstance(target, str) else None
    given = match.group(1) if match else ""
    found = given if given in OPERATORS else given[:-1]
    if found not in OPERATORS or (found != given and given != found + "_"):
        raise Refused("%s is no operator of plain networks" % shown(target), "target")
    return found


def node(value: Any) -> Any:
    """Check a node: an operator that is known, and arguments that it may have."""
    known = operator(value.get("target") if isinstance(value, dict) else None)
    kinds = dict(ARGUMENTS, as_string=STRINGS[known]) if known in STRINGS else ARGUMENTS
    given = _record({"name": ARGUMENT_NAME, "arg": _one_of(kinds)}, {"kind": _exactly(None, 1, 2)})
    results = _list(_one_of(OUTPUTS))
    needed = {"target": str, "inputs": _list(given), "outputs": results, "metadata": _metadata}  # type: Dict[str, Check]
    return _record(needed, {"is_hop_single_tensor_return": _exactly(None), "name": _maybe(name)})(value)


ARGUMENT_NAME = _words("[A-Za-z_][A-Za-z0-9_]{0,60}|", "name of an argument")
STACK = re.compile("([A-Za-z0-9_]*,[A-Za-z0-9_.]*,[A-Za-z0-9_.]+)(;[A-Za-z0-9_]*,[A-Za-z0-9_.]*,[A-Za-z0-9_.]+)*", re.ASCII)


def _metadata(value: Any) -> Any:
    """Keep a layer's place where it is plain: messages name it. What else is said of a node is left out."""
    stack = value.get("nn_module_stack") if isinstance(value, dict) else None
    return {"nn_module_stack": stack} if isinstance(stack, str) and len(stack) < MOST_TEXT and STACK.fullmatch(stack) else {}


def packing(value: Any) -> str:
    """Check how inputs or outputs are packed, which is JSON within JSON: torch would import what it names."""
    found = read(value.encode("utf-8"), _list(lambda each: each)) if isinstance(value, str) else []
    if len(found) != 2:
        raise Refused("%s is no packing" % shown(value))
    return json.dumps([_exactly(1)(found[0]), _tree(found[1])])


def _tree(value: Any) -> Any:
    kind = value.get("type") if isinstance(value, dict) else None
    if kind is None:
        return _record({"type": _exactly(None), "context": _exactly(None), "children_spec": _exactly([])})(value)
    context = _keys if kind == "builtins.dict" else _exactly("null")
    kinds = _exactly("builtins.tuple", "builtins.list", "builtins.dict")
    return _record({"type": kinds, "context": context, "children_spec": _list(_tree)})(value)


def _keys(value: Any) -> str:
    return json.dumps(read(value.encode("utf-8") if isinstance(value, str) else b"", _list(name)))


GRAPH = _record(
    {
        "inputs": _list(ONE_TENSOR),
        "outputs": _list(ONE_TENSOR),
        "nodes": _list(node),
        "tensor_values": _mapping(name, META),
        "sym_int_values": _mapping(name, SYM_INT),
        "sym_bool_values": _mapping(name, _one_of({"as_expr": EXPRESSION, "as_bool": BOOL})),
    },
    {"is_single_tensor_return": _exactly(False), "custom_obj_values": _exactly({}), "sym_float_values": _exactly({})},
)
USER = _record({"arg": ONE_TENSOR})
INPUTS = {
    "user_input": USER,
    "parameter": _record({"arg": TENSOR, "parameter_name": path}),
    "buffer": _record({"arg": TENSOR, "buffer_name": path, "persistent": BOOL}),
    "tensor_constant": _record({"arg": TENSOR, "tensor_constant_name": path}),
}
RESULTS = {"user_output": USER, "buffer_mutation": _record({"arg": TENSOR, "buffer_name": path})}
CALL_SIGNATURE = _record(
    {"inputs": _exactly([]), "outputs": _exactly([]), "in_spec": packing, "out_spec": packing},
    {"forward_arg_names": _maybe(_list(name))},
)
CALL = _record({"fqn": lambda value: value if value == "" else path(value)}, {"signature": _maybe(CALL_SIGNATURE)})
RANGE = _record({"min_val": _maybe(INTEGER), "max_val": _maybe(INTEGER)})
PROGRAM = _record(
    {
        "graph_module": _record(
            {
                "graph": GRAPH,
                "signature": _record({"input_specs": _list(_one_of(INPUTS)), "output_specs": _list(_one_of(RESULTS))}),
                "module_call_graph": _list(CALL),
            },
            {"metadata": _exactly({}), "treespec_namedtuple_fields": _exactly({})},
        ),
        "opset_version": _record({"aten": _whole(1, 100)}),
        "range_constraints": _mapping(_words("s[0-9]{1,6}", "symbol of a size"), RANGE),
        "verifiers": _exactly(["TRAINING"], ["ATEN"]),
        "schema_version": _record({"major": _exactly(8), "minor": _whole(0, 1000)}),
    },
    {
        "torch_version": _words("[0-9A-Za-z.+<=_-]{1,60}", "version"),
        "guards_code": _exactly([]),
    },
)
"""The whole of `models/model.json`."""

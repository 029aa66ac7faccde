"""Views into flat buffers without reference counts: two instructions each, where a NumPy slice costs dozens."""

# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

from typing import Any

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array


@intrinsic
def vector(typingctx: Any, buffer: Any, offset: Any, size: Any) -> Any:
    """Elements ``offset .. offset + size`` of a flat buffer, as a 1-D array. The buffer must outlive the view."""
    view = types.Array(buffer.dtype, 1, "C")

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source = make_array(signature.args[0])(context, builder, arguments[0])
        data = builder.gep(source.data, [arguments[1]])
        return _array(context, builder, view, data, [arguments[2]])

    return view(buffer, types.intp, types.intp), generate


@intrinsic
def matrix(typingctx: Any, buffer: Any, offset: Any, rows: Any, columns: Any) -> Any:
    """The (rows, columns) row-major matrix that starts at ``offset`` of a flat buffer, which must outlive it."""
    view = types.Array(buffer.dtype, 2, "C")

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source = make_array(signature.args[0])(context, builder, arguments[0])
        data = builder.gep(source.data, [arguments[1]])
        return _array(context, builder, view, data, [arguments[2], arguments[3]])

    return view(buffer, types.intp, types.intp, types.intp), generate


@intrinsic
def block(typingctx: Any, array: Any, row: Any, column: Any, rows: Any, columns: Any) -> Any:
    """The (rows, columns) block of a row-major matrix at (row, column); its rows keep the matrix's stride."""
    view = types.Array(array.dtype, 2, "A")

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source = make_array(signature.args[0])(context, builder, arguments[0])
        leading = builder.extract_value(source.shape, 1)
        first = builder.add(builder.mul(arguments[1], leading), arguments[2])
        strides = [builder.extract_value(source.strides, axis) for axis in (0, 1)]
        return _array(context, builder, view, builder.gep(source.data, [first]), list(arguments[3:]), strides)

    return view(array, types.intp, types.intp, types.intp, types.intp), generate


@intrinsic
def general(typingctx: Any, array: Any) -> Any:
    """The same matrix, of whose strides the compiler knows nothing: functions of it are compiled once for all."""
    view = types.Array(array.dtype, 2, "A")

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source = make_array(signature.args[0])(context, builder, arguments[0])
        shape, strides = (
            [builder.extract_value(part, axis) for axis in (0, 1)] for part in (source.shape, source.strides)
        )
        return _array(context, builder, view, source.data, shape, strides)

    return view(array), generate


def _array(context: Any, builder: Any, kind: Any, data: Any, shape: list[Any], strides: list[Any] | None = None) -> Any:
    """The LLVM value of an array without owner; row-major unless ``strides`` (in bytes) are given."""
    size = context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(kind.dtype)))
    if strides is None:
        strides = [size] if len(shape) == 1 else [builder.mul(shape[1], size), size]
    array = make_array(kind)(context, builder)
    populate_array(
        array,
        data=builder.bitcast(data, context.get_data_type(kind.dtype).as_pointer()),
        shape=cgutils.pack_array(builder, shape),
        strides=cgutils.pack_array(builder, strides),
        itemsize=size,
        meminfo=None,
    )
    return array._getvalue()

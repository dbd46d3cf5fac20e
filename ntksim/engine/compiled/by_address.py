"""Named tuples that compiled functions hand on by their address.

Numba hands a named tuple on as all the numbers that its arrays are made of: some three hundred for the memory of a network,
at every call, which took a third of the time of a small network's kernel. By its address it is one.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import models, register_default
from numba.core.imputils import lower_getattr_generic
from numba.core.typing.templates import AttributeTemplate
from numba.extending import infer_getattr, intrinsic

_INDEX, _POINTER = ir.IntType(32), ir.IntType(8).as_pointer()


class Address(types.Type):
    """The type of the address of a named tuple, whose fields are read as those of the tuple are."""

    def __init__(self, kind: types.BaseNamedTuple) -> None:
        self.kind = kind
        super().__init__(f"Address({kind})")

    @property
    def key(self):
        """What tells two types apart: named tuples of one name may be of different classes."""
        return self.kind


@register_default(Address)
class _Model(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, _POINTER)


@infer_getattr
class _Fields(AttributeTemplate):
    key = Address

    def generic_resolve(self, address, name):
        kind = address.kind
        return kind.types[kind.fields.index(name)] if name in kind.fields else None


def _load(builder, place):
    """The value at a place, number by number, so that those which are not used are not loaded."""
    kind = place.type.pointee
    if not isinstance(kind, ir.LiteralStructType | ir.ArrayType):
        return builder.load(place)
    value = ir.Constant(kind, ir.Undefined)
    for i in range(len(kind)):
        inner = builder.gep(place, [_INDEX(0), _INDEX(i)], inbounds=True)
        value = builder.insert_value(value, _load(builder, inner), i)
    return value


def _place(context, builder, address, value):
    return builder.bitcast(value, context.get_value_type(address.kind).as_pointer())


@lower_getattr_generic(Address)
def _field(context, builder, address, value, name):
    place, index = _place(context, builder, address, value), address.kind.fields.index(name)
    found = _load(builder, builder.gep(place, [_INDEX(0), _INDEX(index)], inbounds=True))
    if context.enable_nrt:
        context.nrt.incref(builder, address.kind.types[index], found)
    return found


@intrinsic
def by_address(typingctx, values):
    """Addresses of copies of some named tuples, valid while the function runs that asks for them, if their arrays are kept."""

    def codegen(context, builder, signature, args):
        copies = [cgutils.alloca_once_value(builder, value) for value in cgutils.unpack_tuple(builder, args[0])]
        return context.make_tuple(builder, signature.return_type, [builder.bitcast(copy, _POINTER) for copy in copies])

    return types.Tuple([Address(kind) for kind in values])(values), codegen


@intrinsic
def by_value(typingctx, addresses):
    """The named tuples at some addresses, for loops that threads share, which take nothing else."""

    def codegen(context, builder, signature, args):
        given = zip(signature.args[0], cgutils.unpack_tuple(builder, args[0]), strict=True)
        found = [_load(builder, _place(context, builder, address, value)) for address, value in given]
        if context.enable_nrt:
            for kind, value in zip(signature.return_type, found, strict=True):
                context.nrt.incref(builder, kind, value)
        return context.make_tuple(builder, signature.return_type, found)

    return types.Tuple([address.kind for address in addresses])(addresses), codegen

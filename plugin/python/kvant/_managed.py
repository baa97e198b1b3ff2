"""How the classes of the cache manager call it: through the extension kvant.manager/1 of the library at hand."""
from . import _abi_manager as _abi
from ._object import ErrorCode, KvantError, Object


class Managed(Object):
    """What a Cache's parts share; `_context` is the cache's."""

    def _slot(self, name):
        function = getattr(self._context._manager, name)
        if not function:
            raise KvantError(ErrorCode.UNIMPLEMENTED, name, f"the library's {_abi.NAME.decode()} does not have it")
        return function

    def _ask(self, name, *arguments):
        """Calls the extension's function `name` for this cache."""
        self._call(self._slot(name), self._handle, *arguments)

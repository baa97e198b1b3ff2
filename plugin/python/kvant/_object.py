"""What all handles share: closed once, children before parents; errors of the library become exceptions."""
import ctypes as c
import enum
import weakref


class ErrorCode(enum.IntEnum):
    """`KvantError.code`, as KVANT_ERROR_* in kvant.h."""
    INVALID_ARGUMENT = 1
    NOT_FOUND = 2
    RESOURCE_EXHAUSTED = 3
    FAILED_PRECONDITION = 4
    UNIMPLEMENTED = 5
    UNAVAILABLE = 6
    INCOMPATIBLE = 7
    DATA_LOSS = 8
    INTERNAL = 9


class KvantError(RuntimeError):
    """An error of the library: `code` (ErrorCode, or a plain int that this binding does not know), `source` (the function of
    kvant.h that failed) and `message`. What the binding itself can see is wrong is a ValueError or TypeError instead, raised
    before the library is called."""

    def __init__(self, code, source, message):
        super().__init__(f"{source}: {message}")
        self.code = ErrorCode(code) if code in ErrorCode._value2member_map_ else code
        self.source, self.message = source, message


def check(api, error):
    """Raises KvantError for a kvant_error* that is not NULL, and frees it."""
    if error:
        code = api.error_code(error)
        texts = [text.decode(errors="replace") for text in (api.error_source(error), api.error_message(error))]
        api.error_free(error)
        raise KvantError(code, *texts)


def _destroy(function, handle, keep):
    del keep  # what the library may still use during the call, the log callback above all
    function(handle)


class Object:
    """A handle. It is destroyed by close(), at the end of a with block, with its parent, or when nothing refers to it."""

    def __init__(self, api, handle, destroy, parent=None, keep=None):
        self._api, self._parent, self._children = api, parent, weakref.WeakSet()
        self._handle_value = handle
        # A child may log until it is gone, even where the collector takes its parent first.
        self._keep = (keep, parent and parent._keep)
        self._finalizer = weakref.finalize(self, _destroy, destroy, handle, self._keep)
        if parent is not None:
            parent._children.add(self)

    @property
    def _handle(self):
        if not self._finalizer.alive:
            raise ValueError(f"the {type(self).__name__} is closed")
        return self._handle_value

    def close(self):
        """Destroys the handle and all that was made from it; a second call does nothing."""
        for child in list(self._children):
            child.close()
        self._finalizer()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _call(self, function, *arguments):
        check(self._api, function(*arguments))

    def _make(self, function, *arguments):
        """A handle by the last argument."""
        handle = c.c_void_p()
        self._call(function, *arguments, c.byref(handle))
        return handle.value

    def _number(self, function, *arguments, type=c.c_uint64):
        """A number by the last argument."""
        value = type()
        self._call(function, *arguments, c.byref(value))
        return value.value

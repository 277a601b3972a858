"""Show errors in a notebook as the line of the reader's cell and one sentence, without the code of the course."""

import sys
import traceback
from pathlib import PurePath
from types import FrameType, TracebackType
from typing import Any

from .errors import CourseError, sentence

COURSE = __name__.partition(".")[0]
LIBRARIES = {"site-packages", "dist-packages"}  # where packages are installed
STANDARD_LIBRARY = PurePath(traceback.__file__).parent

# The exceptions for which there can be a sentence. PyTorch raises a RuntimeError if there is too little memory.
KINDS = (CourseError, OSError, MemoryError, ValueError, RuntimeError)


def show_sentences() -> None:
    """From now on, show errors that are not bugs in the code as the line of the cell and one sentence.

    This applies to errors that the code of the course raises. Errors in the reader's own code keep their whole
    traceback, and so do all errors outside IPython. `%tb` shows the whole traceback of the last error.
    """
    shell = _shell()
    if shell is not None and not shell.custom_exceptions:  # the reader may have set some
        shell.set_custom_exc(KINDS, _show)


def _shell() -> Any:
    """Return the IPython shell that runs this code, or None; IPython is not imported for this."""
    return sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None


def _show(
    shell: Any, kind: type, error: BaseException, trace: TracebackType, tb_offset: int | None = None
) -> list[str] | None:
    text, kept = sentence(error), _up_to_the_reader(trace)
    if text is None or kept is None or _comes_from_the_reader(error):
        shell.showtraceback((kind, error, trace), tb_offset=tb_offset)
        return
    shell.showtraceback((CourseError, CourseError(text), kept), tb_offset=tb_offset)
    sys.last_type, sys.last_value, sys.last_traceback = kind, error, trace  # for %tb and %debug


def _comes_from_the_reader(error: BaseException) -> bool:
    """Return whether the reader's own code, such as the forward of a net, caused an error that the course then raised.

    Only the whole traceback says in which line.
    """
    while (error := error.__cause__) is not None:
        steps = _without_libraries(error.__traceback__)
        if steps and not _is_of_the_course(steps[-1].tb_frame):
            return True
    return False


def _up_to_the_reader(trace: TracebackType) -> TracebackType | None:
    """Return a traceback up to the reader's own line; None if that line raised the error itself."""
    steps = _without_libraries(trace)
    if not steps or not _is_of_the_course(steps[-1].tb_frame):
        return None
    while steps and (_is_of_the_course(steps[-1].tb_frame) or _is_of_a_library(steps[-1].tb_frame)):
        steps.pop()
    kept = None
    for step in reversed(steps):
        kept = TracebackType(kept, step.tb_frame, step.tb_lasti, step.tb_lineno)
    return kept


def _without_libraries(trace: TracebackType | None) -> list[TracebackType]:
    """Return the steps of a traceback up to the last one that is not in a library.

    An error raised in a library belongs to the code that called the library.
    """
    steps = []
    while trace is not None:
        steps.append(trace)
        trace = trace.tb_next
    while steps and _is_of_a_library(steps[-1].tb_frame):
        steps.pop()
    return steps


def _is_of_the_course(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).partition(".")[0] == COURSE


def _is_of_a_library(frame: FrameType) -> bool:
    path = PurePath(frame.f_code.co_filename)
    is_ours = _is_of_the_course(frame)  # the course may be installed, too
    return not is_ours and (bool(LIBRARIES & set(path.parts)) or path.is_relative_to(STANDARD_LIBRARY))

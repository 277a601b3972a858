"""What every other subpackage may use: errors, files, settings, hardware, processes, timing and progress bars."""

from .errors import MAX_SEED, CourseError, check_whole

__all__ = ["MAX_SEED", "CourseError", "check_whole"]

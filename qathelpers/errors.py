"""The one exception that says what a user did or has, in a sentence with the way out."""


class CourseError(Exception):
    """Something the user can mend; its message is one sentence that names the problem and the way out."""

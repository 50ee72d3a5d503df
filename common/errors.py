"""Errors that a user can act on."""


class UserError(Exception):
    """Bad input: the message is one clear line that names the file, the key and the fix.

    Entry points print it without a traceback and exit with `exit_code`.
    """

    exit_code = 2


class BadRecord(Exception):
    """One record of a data source cannot be used; the message says why.

    Readers and streams raise it; the loader puts a substitute in the record's place, counts it and names it, so it never
    reaches the training loop.
    """


class Requeue(Exception):
    """The run was asked to stop, has saved a checkpoint and wants to be started again; the message is one line.

    Entry points print it and exit with `exit_code`, EX_TEMPFAIL of sysexits.h.
    """

    exit_code = 75

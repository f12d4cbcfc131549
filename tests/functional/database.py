"""Nova's test database, SQLite, says in words of its own what MySQL calls a deadlock."""

from __future__ import annotations

from oslo_db import exception
from oslo_db.sqlalchemy import exc_filters
from sqlalchemy.exc import OperationalError


@exc_filters.filters("sqlite", OperationalError, r"^.*database is locked.*$")
def tell_a_deadlock(error, match, engine_name, is_disconnect):
    """Let Nova begin the transaction anew, as it does after a deadlock.

    SQLite refuses at once, without waiting, a transaction that wants to write after it has read,
    when another one wrote in between.
    """
    raise exception.DBDeadlock(error)

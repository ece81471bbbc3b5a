"""A durable, provable copy of SPACEDEX spot accounts in PostgreSQL.

Three ideas carry everything: every write is a merge that commutes; a gap is a row; decide with values, act at the
edge. Start reading at ``facts.types`` (what is true), then ``db/apply.sql`` (how it lands), then ``app``.
"""

__version__ = "0.1.0"

"""The base of every table, and column helpers. Times are seconds since the epoch, UTC."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, ClassVar

from sqlalchemy import JSON, Column, Enum, MetaData
from sqlmodel import Field, SQLModel

MAX_ID = 2**63 - 1  # SQLite's largest integer; a larger one cannot even be asked for


def as_id(reference: str) -> int | None:
    """The id that a reference spells, or None."""
    spelled = reference.isascii() and reference.isdecimal() and len(reference) <= len(str(MAX_ID))
    return int(reference) if spelled and int(reference) <= MAX_ID else None


class Table(SQLModel):
    """All tables share this metadata; its naming convention lets migrations alter constraints by name."""

    metadata: ClassVar[MetaData] = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class Numbered(Table):
    """A table whose rows have an integer id, never used twice (AUTOINCREMENT)."""

    id: int | None = Field(default=None, primary_key=True)

    @property
    def key(self) -> int:
        """The id of a stored row."""
        if self.id is None:
            raise ValueError(f"this {type(self).__name__} is not stored yet")
        return self.id


def json_field(*, nullable: bool = True, **options: Any) -> Any:
    """A JSON column; None is SQL NULL."""
    return Field(sa_column=Column(JSON(none_as_null=True), nullable=nullable), **options)


def enum_field(enum: type[StrEnum], name: str, **options: Any) -> Any:
    """A text column that holds the enum's values (not its member names), checked by the database."""
    kind = Enum(
        enum,
        name=name,
        values_callable=lambda members: [member.value for member in members],
        native_enum=False,
        create_constraint=True,
        length=16,
    )
    return Field(sa_column=Column(kind, nullable=False), **options)

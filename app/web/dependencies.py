"""What handlers ask for: settings, the data folder, and a database session that commits before the response leaves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from fastapi import Depends, Request
from sqlmodel import Session

from app.core.database import Database
from app.core.jobs.models import Job
from app.core.jobs.queue import get_job
from app.core.paths import DataFolder
from app.core.settings import Settings


def get_settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


def get_database(request: Request) -> Database:
    database: Database = request.app.state.database
    return database


def get_folder(request: Request) -> DataFolder:
    folder: DataFolder = request.app.state.folder
    return folder


SettingsDep = Annotated[Settings, Depends(get_settings)]
DatabaseDep = Annotated[Database, Depends(get_database)]
FolderDep = Annotated[DataFolder, Depends(get_folder)]


def read_session(database: DatabaseDep) -> Iterator[Session]:
    with database.read() as session:
        yield session


def write_session(database: DatabaseDep) -> Iterator[Session]:
    with database.write() as session:
        yield session


SessionDep = Annotated[Session, Depends(read_session, scope="function")]
WriteSessionDep = Annotated[Session, Depends(write_session, scope="function")]


def find_job(job_id: int, session: SessionDep) -> Job:
    return get_job(session, job_id)


JobDep = Annotated[Job, Depends(find_job, scope="function")]

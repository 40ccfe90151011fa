"""What tests of the datasets' pages share: a database that is copied, not migrated, and a tailer that looks often."""

from tests.api.conftest import _tailer_looks_often as _tailer_looks_often
from tests.core.conftest import database as database
from tests.core.conftest import migrated_file as migrated_file

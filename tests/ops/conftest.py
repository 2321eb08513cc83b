"""Options of the tests of what operators use."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--write-readmes", action="store_true", help="write the tables of the roles' READMEs anew"
    )

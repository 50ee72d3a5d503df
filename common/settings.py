"""The base of every settings class: strict keys, immutable, each field documented where it is declared."""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A group of settings. Unknown keys are errors and values cannot change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, protected_namespaces=(), use_attribute_docstrings=True)

"""The loader of the fallback application, the one that exists when nobody created any (CONF-024)."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING, Any

from celery.exceptions import NotConfigured
from celery.loaders.base import BaseLoader
from celery.utils.collections import force_mapping

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ("DEFAULT_CONFIG_MODULE", "Loader")

DEFAULT_CONFIG_MODULE = "celeryconfig"
#: Environment variable that asks for a warning where there is no configuration module.
C_WNOCONF = "C_WNOCONF"


class Loader(BaseLoader):
    """Reads the module that CELERY_CONFIG_MODULE names, else ``celeryconfig``, and does without where it is missing."""

    def setup_settings(self, settingsdict: Any) -> Mapping[str, Any]:
        """Return *settingsdict*, a mapping or a module, as a mapping."""
        settings: Mapping[str, Any] = force_mapping(settingsdict)
        return settings

    def read_configuration(self, fail_silently: Any = True) -> Mapping[str, Any]:
        """Return the configuration; an empty one where the module does not exist and *fail_silently* is true.

        Raises:
            ImportError: If the module does not exist and *fail_silently* is false, or if an import inside it fails.
        """
        name = os.environ.get("CELERY_CONFIG_MODULE") or DEFAULT_CONFIG_MODULE
        try:
            module = self._import_config_module(name)
        except ModuleNotFoundError as exc:
            if not fail_silently or exc.name != name:
                raise
            if os.environ.get(C_WNOCONF):
                warnings.warn(
                    f"There is no configuration module {name!r}. Put one where Python finds it, or name another "
                    "in CELERY_CONFIG_MODULE.",
                    NotConfigured,
                    stacklevel=2,
                )
            return self.setup_settings({})
        self.configured = True
        return self.setup_settings(module)

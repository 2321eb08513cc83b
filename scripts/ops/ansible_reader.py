"""``python -m scripts.ops.ansible_reader PATH``: an inventory as JSON, read by Ansible's own code.

``ansible-inventory`` prints variables as they are written; a key file such as
``{{ inventory_dir }}/key`` has to be worked out, and only what :data:`WANTED` names is.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from ansible.errors import AnsibleError
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar
from ansible.vars.manager import VariableManager

from scripts.ops.ansible_inventory import WANTED

_ENCRYPTED = b"$ANSIBLE_VAULT"


class WithoutVaults(DataLoader):
    """Reads encrypted files as empty: they hold secrets, which nobody here wants."""

    def load_from_file(self, file_name: str, *arguments: Any, **options: Any) -> Any:
        """The content of a file of variables."""
        with open(self.path_dwim(file_name), "rb") as file:  # noqa: PTH123 - its name may be odd
            if file.read(len(_ENCRYPTED)) == _ENCRYPTED:
                return {}
        return super().load_from_file(file_name, *arguments, **options)


def read(path: str) -> list[dict[str, Any]]:
    """Every host with its groups and the variables that say how it is reached."""
    init_plugin_loader()
    loader = WithoutVaults()
    inventory = InventoryManager(loader=loader, sources=[path])
    variables = VariableManager(loader=loader, inventory=inventory)
    found = []
    for host in inventory.get_hosts():
        known = variables.get_vars(host=host, include_hostvars=False)
        templar = Templar(loader=loader, variables=known)
        values = {name: templar.template(known[name]) for name in WANTED if name in known}
        groups = sorted({group.name for group in host.get_groups()} - {"all", "ungrouped"})
        found.append({"name": host.name, "groups": groups, "variables": values})
    return found


if __name__ == "__main__":
    try:
        print(json.dumps(read(sys.argv[1]), default=str))
    except AnsibleError as error:
        sys.exit(str(error))

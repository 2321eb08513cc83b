"""The Fabric tasks: how the suite's hosts are looked at and looked after from a laptop.

``fabfile.py`` at the root names the tasks; each module here holds one concept. What decides
(``inventory``, ``hosts``, ``checks``, ``roll``, ``lines``) takes values and returns values; what
talks to hosts (``reach``, ``supervisord``, ``suite``) is kept apart from it. The files in
``onhost/`` run on the hosts, under their own ``python3`` and with nothing but its standard library.
"""

"""The dashboard: pages for people, made on the server from the same parts as the API.

Every page works without a script but for what is live: htmx exchanges parts of a page, uPlot draws
lines, and ``static/dashboard.js`` connects the two. All of it is served from here, and the content
security policy allows nothing else.
"""

from __future__ import annotations

from ironbeat.api.dashboard.application import install

__all__ = ["install"]

"""The scenes. Each hurts something, waits in front of the audience, and holds what it saw against what was promised."""

from __future__ import annotations

from deploy.demo.scenes import life, live, outages, trouble

SCENES = (*life.SCENES, *outages.SCENES, *trouble.SCENES, *live.SCENES)

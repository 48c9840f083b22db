"""A stand-in for the API server of Kubeflow Pipelines 2.17, over real HTTP. The real one wants
MySQL, an object store and Argo Workflows, which these tests do not have.

Kept to: paths, query parameters, bodies and answers are those of kfp-server-api's published models;
each request and each answer is checked against them as it passes, and what they do not name is
refused (tests/unit/test_kfp_server.py shows it for every route). What a server of 2.17.0 really
answered is in tests/data/kfp_answers; tests/unit/test_kfp_answers.py compares the stand-in's
answers with it: keys, types, words and zero values.

Limits, where the real server does more or otherwise:
- Nothing is executed. A run has no state until a test says otherwise: `advance`, or `course`, one
  entry for each look at a run.
- No schedule fires by the clock: `tick` is a moment that its cron names, `trigger` makes the run
  that it would start.
- A field that no published model names is refused; the real server passes it over. Filters know AND
  of EQUALS, NOT_EQUALS, IN and IS_SUBSTRING; other operators are answered 501, as are PATCH and
  making a version from a URL.
- A cron expression is counted (5 or 6 fields), not read.
- Deleting a recurring run fails its active runs at once unless asked to orphan them
  (kubeflow/pipelines#7421, at its worst).
- No TLS, one bearer token for everyone, no roles: `forbidden` namespaces answer 403, or 400 where
  something is uploaded.

Modules: server (state, and what a test may do to it), definitions, runs, schedules (what the API
does), nodes (a run's tasks as Argo has them), lists (pages, filters, tokens), answers (models and
errors), routes, http.
"""

from tests.support.kfp.answers import unknown_fields
from tests.support.kfp.http import PREFIX, kfp_server
from tests.support.kfp.routes import ROUTES
from tests.support.kfp.server import KfpServer

__all__ = ["PREFIX", "ROUTES", "KfpServer", "kfp_server", "unknown_fields"]

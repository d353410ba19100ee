"""Integrations with existing trackers. Import each module explicitly, since most require a different package.

`client_session.trackers.snowplow` requires ``snowplow-tracker`` (the ``snowplow`` extra).
`client_session.trackers.opentelemetry` requires ``opentelemetry-sdk`` (the ``opentelemetry`` extra).
`client_session.trackers.logging` requires only the standard library.
"""

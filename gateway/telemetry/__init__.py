"""TELLS: what happened, to people and machines, without ever telling a secret.

Always true: telemetry never decides anything and never fails a call.  Every sink (log line, metric
label, span attribute) passes through one `redaction.Redactor`.  Every set of label values is
closed, so nothing a caller sends makes memory or a scrape grow.  The happy path pays for integers
only: prometheus objects are built at scrape, spans after the fact, log lines when something is
worth saying.

redaction (secrets out of text) - logs (owner of the logging configuration) - tallies (the integers
of the hot path) - metrics (owner of prometheus_client) - traces (which calls become spans, W3C
trace context) - otlp (owner of opentelemetry; imported only when tracing is configured).

Does not belong here: health decisions (policy), the status page (edge), live state (upstream).
"""

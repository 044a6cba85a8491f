-- How many reports somebody has made in a day.
CREATE INDEX abuse_report_by ON abuse_report (provider, at);

CREATE INDEX key_package_over ON key_package (not_after);

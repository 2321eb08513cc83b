DROP TABLE ironbeat.limit_samples, ironbeat.queue_samples, ironbeat.samples, ironbeat.audit,
    ironbeat.login_failures, ironbeat.web_sessions, ironbeat.users;

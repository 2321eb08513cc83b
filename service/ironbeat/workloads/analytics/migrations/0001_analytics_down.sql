-- Without CASCADE: what someone else has built on these tables stops the downgrade.
DROP TABLE analytics.warm_processes, analytics.cached_payloads;
DROP TABLE analytics.question_group_days, analytics.question_texts, analytics.question_groups;
DROP TABLE analytics.clusterings;
DROP TABLE analytics.pending_embeddings, analytics.chat_message_embeddings_1024;
DROP TABLE analytics.embedding_models, analytics.chat_messages;
DROP FUNCTION analytics.enqueue_changed();
DROP FUNCTION analytics.enqueue_new();
DROP SCHEMA analytics;

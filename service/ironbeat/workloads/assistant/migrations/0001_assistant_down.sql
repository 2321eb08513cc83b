-- Without CASCADE: what someone else has built on these tables stops the downgrade.
DROP TABLE assistant.stock, assistant.products, assistant.warehouses;
DROP TABLE assistant.tool_runs, assistant.answers, assistant.messages, assistant.conversations;
DROP TABLE assistant.users, assistant.used_nonces, assistant.access_tokens, assistant.accounts;
DROP SCHEMA assistant;

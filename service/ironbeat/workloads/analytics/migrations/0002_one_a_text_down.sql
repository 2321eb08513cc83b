DROP TRIGGER chat_messages_keep_texts_indexed_updated ON analytics.chat_messages;
DROP TRIGGER chat_messages_keep_texts_indexed_deleted ON analytics.chat_messages;
DROP FUNCTION analytics.keep_texts_indexed();
-- Takes the indexes along whose condition it is.
ALTER TABLE analytics.chat_message_embeddings_1024 DROP COLUMN indexed CASCADE;

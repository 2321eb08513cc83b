-- Without CASCADE: what someone else has built on these tables stops the downgrade.
DROP TABLE documents.chunks;
DROP TABLE documents.documents;
DROP TABLE documents.batches;
DROP SCHEMA documents;

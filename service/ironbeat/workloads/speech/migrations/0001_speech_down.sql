-- Without CASCADE: what someone else has built on these tables stops the downgrade.
DROP TABLE speech.analyses, speech.practice_records, speech.exercises, speech.audio;
DROP SCHEMA speech;

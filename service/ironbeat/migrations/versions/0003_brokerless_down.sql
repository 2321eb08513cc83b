DROP TABLE ironbeat.chord_parts;
DROP TABLE ironbeat.chords;
DROP TABLE ironbeat.kept;
DROP INDEX ironbeat.runs_drawable;

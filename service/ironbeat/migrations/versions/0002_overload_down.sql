DROP FUNCTION ironbeat.throttle_sweep(integer);
DROP FUNCTION ironbeat.throttle_leave(text, text);
DROP FUNCTION ironbeat.throttle_enter(text, text, text, double precision, integer, integer);
DROP FUNCTION ironbeat.throttle_call(text, integer);
DROP TABLE ironbeat.throttle_places;
DROP TABLE ironbeat.throttles;
DROP INDEX ironbeat.runs_expiry;
DROP INDEX ironbeat.runs_outbox_of_queue;
ALTER TABLE ironbeat.run_history DROP COLUMN handled;
DELETE FROM ironbeat.leases WHERE kind IN ('watchdog', 'scaler');
ALTER TABLE ironbeat.leases DROP CONSTRAINT leases_kind_check;
ALTER TABLE ironbeat.leases ADD CONSTRAINT leases_kind_check
    CHECK (kind IN ('worker', 'beat', 'scheduler', 'api'));

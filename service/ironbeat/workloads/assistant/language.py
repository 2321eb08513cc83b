"""The language of a message, and the sentences that the assistant says by itself."""

from __future__ import annotations

import re
from typing import Literal

Language = Literal["zh-Hant", "zh-Hans", "en"]

_CJK = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")
_LATIN_WORD = re.compile(r"[A-Za-z]{2,}")
# Frequent characters that are written differently; one of them tells the script.
_HANT = frozenset(
    "這個們來時說對為開關還請問庫倉訂單貨產價錢發經過應該嗎麼誰邊裡點後給幫應無頭買賣"
)
_HANS = frozenset(
    "这个们来时说对为开关还请问库仓订单货产价钱发经过应该吗么谁边里点后给帮应无头买卖"
)
_ONLY_HANT, _ONLY_HANS = _HANT - _HANS, _HANS - _HANT


def language_of(text: str, hint: str = "") -> str:
    """The language in which ``text`` is written; the empty text if it does not tell.

    ``hint`` is an IETF tag such as a channel gives of its user; it decides only between scripts,
    and where there is no text.
    """
    hinted = _of_tag(hint)
    if _CJK.search(text):
        hant, hans = (len(set(text) & each) for each in (_ONLY_HANT, _ONLY_HANS))
        if hant != hans:
            return "zh-Hant" if hant > hans else "zh-Hans"
        return hinted if hinted.startswith("zh") else ""
    # A command is the same in every language.
    if text.startswith(("/", "／")) or not _LATIN_WORD.search(text):
        return hinted
    return "en"


def _of_tag(tag: str) -> str:
    tag = tag.lower().replace("_", "-")
    if tag.startswith("zh"):
        return (
            "zh-Hant" if any(each in tag for each in ("hant", "-tw", "-hk", "-mo")) else "zh-Hans"
        )
    return "en" if tag.startswith("en") else ""


SENTENCES: dict[str, dict[str, str]] = {
    "received": {
        "zh-Hant": "收到，處理中。",
        "zh-Hans": "收到，处理中。",
        "en": "Received, working on it.",
    },
    "text_only": {
        "zh-Hant": "我只看得懂文字訊息。輸入 /help 看看我能做什麼。",
        "zh-Hans": "我只看得懂文字消息。输入 /help 看看我能做什么。",
        "en": "I can read text only. Send /help to see what I can do.",
    },
    "help": {
        "zh-Hant": "我可以回答問題、查詢庫存。\n/help 說明\n/tools 我的工具\n"
        "/stock 倉庫 [商品] 查庫存\n/run 工具 {參數} 執行工具",
        "zh-Hans": "我可以回答问题、查询库存。\n/help 说明\n/tools 我的工具\n"
        "/stock 仓库 [商品] 查库存\n/run 工具 {参数} 执行工具",
        "en": "I answer questions and look up stock.\n/help this\n/tools what I can run for you\n"
        "/stock WAREHOUSE [PRODUCT] what is there\n/run TOOL {PARAMETERS} run a tool",
    },
    "unknown_command": {
        "zh-Hant": "沒有 {name} 這個指令。/help 列出所有指令。",
        "zh-Hans": "没有 {name} 这个命令。/help 列出所有命令。",
        "en": "There is no command {name}. /help lists them.",
    },
    "usage": {"zh-Hant": "用法：{usage}", "zh-Hans": "用法：{usage}", "en": "Usage: {usage}"},
    "no_tools": {
        "zh-Hant": "目前沒有你可以使用的工具。",
        "zh-Hans": "目前没有你可以使用的工具。",
        "en": "There are no tools that you may use.",
    },
    "no_such_tool": {
        "zh-Hant": "沒有 {name} 這個工具。/tools 列出所有工具。",
        "zh-Hans": "没有 {name} 这个工具。/tools 列出所有工具。",
        "en": "There is no tool {name}. /tools lists them.",
    },
    "denied": {
        "zh-Hant": "你沒有使用 {name} 的權限。",
        "zh-Hans": "你没有使用 {name} 的权限。",
        "en": "You may not use {name}.",
    },
    "invalid": {
        "zh-Hant": "{name} 的參數不正確：{why}",
        "zh-Hans": "{name} 的参数不正确：{why}",
        "en": "The parameters of {name} are wrong: {why}",
    },
    "timed_out": {
        "zh-Hant": "{name} 花太久時間，已停止等待。",
        "zh-Hans": "{name} 花太久时间，已停止等待。",
        "en": "{name} took too long; I no longer wait for it.",
    },
    "broken": {
        "zh-Hant": "{name} 執行失敗。",
        "zh-Hans": "{name} 执行失败。",
        "en": "{name} failed.",
    },
    "started": {
        "zh-Hant": "{name} 已開始，完成後通知你。",
        "zh-Hans": "{name} 已开始，完成后通知你。",
        "en": "{name} has begun; I will tell you when it is done.",
    },
    "progress": {
        "zh-Hant": "{name}：{percent}%（{step}）",
        "zh-Hans": "{name}：{percent}%（{step}）",
        "en": "{name}: {percent}% ({step})",
    },
    "failed": {
        "zh-Hant": "抱歉，處理你的訊息時發生錯誤，請稍後再試。",
        "zh-Hans": "抱歉，处理你的消息时发生错误，请稍后再试。",
        "en": "Sorry, something went wrong with your message. Please try again later.",
    },
    "lost": {
        "zh-Hant": "這個我不知道。/help 看看我能做什麼。",
        "zh-Hans": "这个我不知道。/help 看看我能做什么。",
        "en": "I do not know that. /help shows what I can do.",
    },
    "found": {
        "zh-Hant": "我在資料中找到：",
        "zh-Hans": "我在资料中找到：",
        "en": "This is what I found:",
    },
    "no_warehouse": {
        "zh-Hant": "沒有「{asked}」這個倉庫。有：{known}",
        "zh-Hans": "没有“{asked}”这个仓库。有：{known}",
        "en": "There is no warehouse {asked}. There are: {known}",
    },
    "stock": {
        "zh-Hant": "{name}（{code}）：{products} 種商品，可用 {available}，保留 {reserved}，"
        "{low} 種需要補貨",
        "zh-Hans": "{name}（{code}）：{products} 种商品，可用 {available}，预留 {reserved}，"
        "{low} 种需要补货",
        "en": "{name} ({code}): {products} products, {available} available, {reserved} reserved, "
        "{low} to be ordered again",
    },
    "low": {"zh-Hant": "需補貨", "zh-Hans": "需补货", "en": "order again"},
    "no_product": {
        "zh-Hant": "{code} 沒有「{sku}」。",
        "zh-Hans": "{code} 没有“{sku}”。",
        "en": "{code} has no {sku}.",
    },
    "low_stock": {
        "zh-Hant": "{warehouses} 個倉庫中有 {products} 項需要補貨：",
        "zh-Hans": "{warehouses} 个仓库中有 {products} 项需要补货：",
        "en": "In {warehouses} warehouses {products} are to be ordered again:",
    },
}


def say(sentence: str, language: str, **values: object) -> str:
    """A sentence in a language, in English where it has none of it."""
    spoken = SENTENCES[sentence]
    text = spoken.get(language) or spoken["en"]
    return text.format(**values) if values else text

"""The channels, by the name that stands in a webhook's address."""

from __future__ import annotations

from collections.abc import Mapping

from ironbeat.workloads.assistant.channels.contract import Channel
from ironbeat.workloads.assistant.channels.dingtalk import DingTalk
from ironbeat.workloads.assistant.channels.telegram import Telegram
from ironbeat.workloads.assistant.channels.wechat import WeChat
from ironbeat.workloads.assistant.channels.wecom import WeCom

CHANNELS: Mapping[str, Channel] = {
    channel.name: channel for channel in (WeChat(), WeCom(), DingTalk(), Telegram())
}

__all__ = ["CHANNELS", "Channel"]

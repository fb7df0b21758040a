"""From a trading signal to one correct order.

Everything that is promised can be taken from here; where a name is defined may change.
"""

from __future__ import annotations

from execkit.audit.entry import ExecutionLogEntry
from execkit.audit.logger import ExecutionLogger
from execkit.audit.verify import verify_audit
from execkit.bars.cache import BarHistory, MarketData, MarketDataCache
from execkit.bars.closes import BarCloseEvent
from execkit.bars.detector import BarCloseDetector
from execkit.bars.feed import BarFeed
from execkit.bars.live import LiveOptions
from execkit.bars.reader import BarFileSpec, read_bars
from execkit.calendars import ExchangeHours
from execkit.clock import Clock, ManualClock, SystemClock
from execkit.config import Config
from execkit.engine import ExecutionEngine
from execkit.errors import (
    AuthenticationError,
    ConfigurationError,
    DuplicateClientOrderIdError,
    ExchangeError,
    ExchangeUnavailableError,
    ExecKitError,
    InsufficientBalanceError,
    InvalidOrderError,
    InvalidTransitionError,
    JournalAccountError,
    JournalCommitError,
    JournalCorruptedError,
    JournalError,
    JournalLockedError,
    JournalVersionError,
    MarketClosedError,
    MarketOrderRefusedError,
    NotSentError,
    OrderNotFoundError,
    OrderRejectedError,
    OrderStatusUnknownError,
    PipelineError,
    QuantityTooLargeError,
    RateLimitError,
    RegistrationError,
    SignalConflictError,
    UnsupportedFeatureError,
    VirtualTimeError,
)
from execkit.events import EventBus, Subscription
from execkit.exchanges.base import ExchangeAdapter, MarketPhase, MarketStatus
from execkit.exchanges.factory import ExchangeFactory
from execkit.exchanges.factory import built_in_class as _built_in_class
from execkit.exchanges.paper import PaperExchange
from execkit.functions.base import (
    ConfidenceLevel,
    ExecutionAction,
    ExecutionContext,
    ExecutionFunctionBase,
    ExecutionSignal,
    FunctionParams,
    Part,
)
from execkit.functions.builtin import standard_registry
from execkit.functions.compose import (
    all_of,
    any_of,
    confirm,
    cooldown,
    k_of_n,
    not_,
    only_in_session,
    use,
)
from execkit.functions.registry import ExecutionFunctionRegistry, default_registry, register
from execkit.group import EngineGroup
from execkit.handlers.breaker import CircuitBreakerHandler
from execkit.handlers.confirmation import ConfirmationHandler, TerminalPrompt
from execkit.handlers.executor import OrderExecutorHandler
from execkit.handlers.market_hours import MarketHoursHandler
from execkit.handlers.reconciliation import ReconciliationHandler
from execkit.handlers.risk import RiskManagementHandler
from execkit.handlers.throttle import RateLimitHandler
from execkit.handlers.validation import ValidationHandler
from execkit.journal.base import Journal, MemoryJournal
from execkit.journal.file import FileJournal
from execkit.market import MarketHours
from execkit.model.account import AccountView, Balance, VenuePosition
from execkit.model.capabilities import Capabilities
from execkit.model.denial import Denial, DenialCode
from execkit.model.events import (
    Event,
    OrderCancelled,
    OrderFailed,
    OrderFilled,
    OrderInDoubt,
    OrderPartiallyFilled,
    OrderPlaced,
    PositionChanged,
    PositionClosed,
    PositionOpened,
    ProtectionFailed,
    ProtectionPlaced,
    ReconcileMismatch,
    SignalDenied,
    SlippageAlert,
    SystemError,  # noqa: A004 - promised name
    TradingSignalGenerated,
    TradingStateSet,
)
from execkit.model.instrument import Instrument
from execkit.model.market import BarData, Quote, Timeframe, Trade
from execkit.model.order import (
    Fill,
    ListKind,
    OrderList,
    OrderReport,
    OrderRequest,
    OrderRole,
    OrderState,
    OrderType,
    OrderUpdate,
    Side,
    StreamGap,
    TimeInForce,
)
from execkit.model.plan import TradePlanStatus
from execkit.model.position import Position, PositionState
from execkit.model.records import TradingState
from execkit.model.result import ExecutionResult, HandlerTrace, Outcome
from execkit.model.signal import TradingSignal
from execkit.model.slicing import Iceberg, Twap, Vwap
from execkit.model.ticket import OrderTicket, RiskStamp
from execkit.orders.manager import ManagedOrder, OrderManager
from execkit.pipeline import ExecutionHandler, ExecutionPipeline, Next, handler
from execkit.plans import Rule, TradePlan, load_plans
from execkit.protection.policy import HALF_AND_HALF, PartialExit, ProtectionPolicy
from execkit.replay import Replayed, replay
from execkit.risk.limits import RiskLimits
from execkit.risk.sizing import (
    FixedNotional,
    FixedQuantity,
    PercentOfEquity,
    RiskPerTrade,
    Sizing,
    SizingInputs,
    VolatilityTarget,
)
from execkit.risk.stops import AtrStop, FixedStop, LevelStop, StopRule
from execkit.virtual_time import VirtualClock, VirtualTimeLoop, run_virtual

__all__ = [
    "HALF_AND_HALF",
    "AccountView",
    "AlpacaAdapter",
    "AtrStop",
    "AuthenticationError",
    "Balance",
    "BarCloseDetector",
    "BarCloseEvent",
    "BarData",
    "BarFeed",
    "BarFileSpec",
    "BarHistory",
    "BinanceAdapter",
    "BinanceCCXTAdapter",
    "CCXTAdapter",
    "Capabilities",
    "CircuitBreakerHandler",
    "Clock",
    "ConfidenceLevel",
    "Config",
    "ConfigurationError",
    "ConfirmationHandler",
    "Denial",
    "DenialCode",
    "DuplicateClientOrderIdError",
    "EngineGroup",
    "Event",
    "EventBus",
    "ExchangeAdapter",
    "ExchangeError",
    "ExchangeFactory",
    "ExchangeHours",
    "ExchangeUnavailableError",
    "ExecKitError",
    "ExecutionAction",
    "ExecutionContext",
    "ExecutionEngine",
    "ExecutionFunctionBase",
    "ExecutionFunctionRegistry",
    "ExecutionHandler",
    "ExecutionLogEntry",
    "ExecutionLogger",
    "ExecutionPipeline",
    "ExecutionResult",
    "ExecutionSignal",
    "FileJournal",
    "Fill",
    "FixedNotional",
    "FixedQuantity",
    "FixedStop",
    "FunctionParams",
    "HandlerTrace",
    "IBKRAdapter",
    "Iceberg",
    "Instrument",
    "InsufficientBalanceError",
    "InvalidOrderError",
    "InvalidTransitionError",
    "Journal",
    "JournalAccountError",
    "JournalCommitError",
    "JournalCorruptedError",
    "JournalError",
    "JournalLockedError",
    "JournalVersionError",
    "LevelStop",
    "ListKind",
    "LiveOptions",
    "ManagedOrder",
    "ManualClock",
    "MarketClosedError",
    "MarketData",
    "MarketDataCache",
    "MarketHours",
    "MarketHoursHandler",
    "MarketOrderRefusedError",
    "MarketPhase",
    "MarketStatus",
    "MemoryJournal",
    "Next",
    "NotSentError",
    "OrderCancelled",
    "OrderExecutorHandler",
    "OrderFailed",
    "OrderFilled",
    "OrderInDoubt",
    "OrderList",
    "OrderManager",
    "OrderNotFoundError",
    "OrderPartiallyFilled",
    "OrderPlaced",
    "OrderRejectedError",
    "OrderReport",
    "OrderRequest",
    "OrderRole",
    "OrderState",
    "OrderStatusUnknownError",
    "OrderTicket",
    "OrderType",
    "OrderUpdate",
    "Outcome",
    "PaperExchange",
    "Part",
    "PartialExit",
    "PercentOfEquity",
    "PipelineError",
    "Position",
    "PositionChanged",
    "PositionClosed",
    "PositionOpened",
    "PositionState",
    "ProtectionFailed",
    "ProtectionPlaced",
    "ProtectionPolicy",
    "QuantityTooLargeError",
    "Quote",
    "RateLimitError",
    "RateLimitHandler",
    "ReconcileMismatch",
    "ReconciliationHandler",
    "RegistrationError",
    "Replayed",
    "RiskLimits",
    "RiskManagementHandler",
    "RiskPerTrade",
    "RiskStamp",
    "Rule",
    "Side",
    "SignalConflictError",
    "SignalDenied",
    "Sizing",
    "SizingInputs",
    "SlippageAlert",
    "StopRule",
    "StreamGap",
    "Subscription",
    "SystemClock",
    "SystemError",
    "TerminalPrompt",
    "TimeInForce",
    "Timeframe",
    "Trade",
    "TradePlan",
    "TradePlanStatus",
    "TradingSignal",
    "TradingSignalGenerated",
    "TradingState",
    "TradingStateSet",
    "Twap",
    "UnsupportedFeatureError",
    "ValidationHandler",
    "VenuePosition",
    "VirtualClock",
    "VirtualTimeError",
    "VirtualTimeLoop",
    "VolatilityTarget",
    "Vwap",
    "all_of",
    "any_of",
    "confirm",
    "cooldown",
    "default_registry",
    "handler",
    "k_of_n",
    "load_plans",
    "not_",
    "only_in_session",
    "read_bars",
    "register",
    "replay",
    "run_virtual",
    "standard_registry",
    "use",
    "verify_audit",
]


def __getattr__(name: str) -> type[ExchangeAdapter]:
    """Import the adapter of a venue when it is asked for, so that nobody needs the clients of other venues."""
    found = _built_in_class(name)
    if found is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return found

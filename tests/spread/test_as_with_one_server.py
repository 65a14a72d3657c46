"""What holds with one server holds with logs on others: the same tests, once more."""

from tests.flow.test_answer import *  # noqa: F403
from tests.flow.test_cancel import *  # noqa: F403
from tests.flow.test_chats import *  # noqa: F403
from tests.flow.test_disconnect import *  # noqa: F403
from tests.flow.test_jobs import *  # noqa: F403
from tests.flow.test_resume import *  # noqa: F403
from tests.flow.test_retries import *  # noqa: F403

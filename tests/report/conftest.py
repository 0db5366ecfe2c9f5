import json

import pytest
import report_documents


@pytest.fixture(params=sorted(report_documents.ALL))
def document(request):
    """Every kind of comparison, as it comes back from JSON."""
    return json.loads(json.dumps(report_documents.ALL[request.param](), allow_nan=False))


@pytest.fixture
def typical():
    return report_documents.typical()

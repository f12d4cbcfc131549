"""Lets pytest run Nova's test cases."""


class PytestFriendly:
    """Mixed in before ``nova.test.TestCase``."""

    def _clear_attrs(self):
        # Nova forgets everything at the end; pytest still needs the method that it set.
        method = self.__dict__.get(self._testMethodName)
        super()._clear_attrs()
        if method:
            setattr(self, self._testMethodName, method)

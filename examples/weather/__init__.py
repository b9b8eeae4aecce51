"""The weather at New York's airports in 2013: how warm will it be in six hours?"""

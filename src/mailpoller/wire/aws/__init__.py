"""Services of AWS, and those that speak like them: SQS, SNS, S3.

``settings`` are the keys that their blocks have in common, ``client`` asks and puts errors into words, ``transport`` is
the HTTP beneath, ``entries`` what SQS and SNS are handed. The library signs, writes and reads; nothing of it is
imported before something is asked.
"""

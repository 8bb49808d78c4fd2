"""The client: told once over a few steps (`core`), which the blocking one (`sync`) and the async one (`aio`) do each in
its own way.
"""
